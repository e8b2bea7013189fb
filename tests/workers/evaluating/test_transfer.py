"""The same network on other data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.places import Place
from pipeline.errors import UserError
from tests.workers.evaluating.guessed_classes import SIDE, TEST, context, images, pixels, save
from workers.evaluating.transfer import check_transfer, transfer_contexts


def test_transfer_sets_are_other_contexts_of_the_same_network(tmp_path: Path) -> None:
    first, gray = images(tmp_path / "own"), images(tmp_path / "gray birds", gray=True, train=12)
    packs = [{"name": "image_folder", "root": str(gray)}, {"name": "fashion_mnist_10k"},
             {"name": "image_folder", "root": str(gray)}]  # fmt: skip
    found = context(first, transfer=packs)
    check_transfer(found)
    others = list(transfer_contexts(found))
    names = ["image_folder:gray birds", "fashion_mnist_10k", "image_folder:gray birds (transfer 2)"]
    assert [other.data_name for other in others] == names
    birds, fashion, _ = others
    assert birds.stages is found.stages
    assert (len(birds.train_images), len(birds.test_images), birds.classes) == (12, TEST, 3)
    assert (fashion.data.image_size, fashion.classes) == (SIDE, 10)
    place = Place(2, "trunk")
    features = birds.test.features[place]
    batch = np.stack([birds.view(birds.test_images.image(index)) for index in range(7)])
    assert batch.shape == (7, SIDE, SIDE, 3)
    assert torch.equal(birds.embed(batch, [place])[place], features[:7])


def test_a_name_that_is_taken_by_the_run_itself_is_told_apart(tmp_path: Path) -> None:
    found = replace(context(images(tmp_path), transfer=[{"name": "fashion_mnist_10k"}]), data_name="fashion_mnist_10k")
    assert [other.data_name for other in transfer_contexts(found)] == ["fashion_mnist_10k (transfer 0)"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"name": "cifar10"}, r"^PLACE\.root: cifar10 needs the folder .* Set PLACE\.root=FOLDER"),
        ({"name": "cifar10", "root": "NOWHERE"}, r"^PLACE \(cifar10\): PLACE\.root 'NOWHERE' holds no"),
        ({"name": "cifar10", "root": ".", "split": "tran"}, r"^PLACE\.split: "),
        (
            {"name": "image_folder", "root": "FLAT"},
            r"^PLACE \(image_folder\): the train images of image_folder have no",
        ),
        ({"name": "image_folder", "root": "TRAIN"}, r"^PLACE \(image_folder\): .*has no test images"),
    ],
)
def test_a_missing_transfer_set_is_named(tmp_path: Path, second: dict[str, str], message: str) -> None:
    root = images(tmp_path / "own")
    save(tmp_path / "flat" / "train" / "a.png", pixels(0))
    save(tmp_path / "only" / "train" / "bee" / "a.png", pixels(0))
    places = {"FLAT": str(tmp_path / "flat"), "TRAIN": str(tmp_path / "only")}
    other = {key: places.get(value, value) for key, value in second.items()}
    found = context(root, transfer=[{"name": "fashion_mnist_10k"}, other])
    wanted = message.replace("PLACE", r"evaluation\.transfer\.1")
    with pytest.raises(UserError, match=wanted):
        check_transfer(found)
    with pytest.raises(UserError, match=wanted):
        list(transfer_contexts(found))
