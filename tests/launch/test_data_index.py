"""A run goes on with the data it began with, or not at all; data without labels are refused where one needs them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Data
from pipeline.data.datasets import open_dataset
from pipeline.data.index import Index, fingerprint

Onward = Callable[..., Any]
Refused = Callable[[Any, str], None]


@pytest.fixture
def started(folder: Path, onward: Onward, fake_training: list[Path]) -> Path:
    """A run that was stopped in its first step."""
    assert onward("train", "config.yaml", "run_dir=run").code == 0
    assert len(fake_training) == 1
    return folder


def test_a_run_keeps_the_index_of_its_data(started: Path, onward: Onward, fake_training: list[Path]) -> None:
    index = Index.from_bytes((started / "run" / "data_index.npz").read_bytes(), "x")
    assert index.fingerprint == fingerprint(open_dataset(Data(name="image_folder", root="images"), "train"))
    assert onward("train", "config.yaml", "run_dir=run").code == 0
    assert len(fake_training) == 2


def test_the_data_may_move(started: Path, onward: Onward) -> None:
    shutil.move("images", "elsewhere")
    assert onward("train", "config.yaml", "run_dir=run", "data.root=elsewhere").code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "class0/1.png").unlink(), r"'class0/1\.png' is gone; it has 7 images now and had 8"),
        (lambda f: (f / "class0/1.png").write_bytes(b"x"), r"'class0/1\.png' has 1 bytes now and had \d+"),
        (lambda f: shutil.copy(f / "class0/1.png", f / "class1/9.png"), r"'class1/9\.png' is new; it has 9"),
    ],
)
def test_data_that_changed_are_refused_before_anything_starts(
    started: Path, onward: Onward, assert_refused: Refused, change: Callable[[Path], object], words: str
) -> None:
    change(started / "images" / "train")
    for command in ("check", "train"):
        refused = onward(command, "config.yaml", "run_dir=run")
        assert_refused(
            refused, rf"^data\.root: the training set is not the one that the run in 'run' began with: {words}"
        )


def test_a_run_from_before_there_were_indices(started: Path, onward: Onward, fake_training: list[Path]) -> None:
    (started / "run" / "data_index.npz").unlink()
    assert onward("train", "config.yaml", "run_dir=run").code == 0
    assert len(fake_training) == 2
    assert (started / "run" / "data_index.npz").is_file()  # from now on there is one


def test_a_damaged_index_is_named(started: Path, onward: Onward, assert_refused: Refused) -> None:
    (started / "run" / "data_index.npz").write_bytes(b"?")
    assert_refused(onward("train", "config.yaml", "run_dir=run"), r"'run/data_index\.npz' is no index of a data set")


@pytest.mark.parametrize("key", ["data.in_memory=true", "data.on_error=skip", "data.workers=2", "data.affinity=false"])
def test_how_the_data_are_read_may_change(started: Path, onward: Onward, key: str) -> None:
    assert onward("train", "config.yaml", "run_dir=run", key).code == 0


def test_images_without_labels(folder: Path, onward: Onward, assert_refused: Refused) -> None:
    flat = "data.root=images/train/class0"
    assert onward("check", "config.yaml", flat).code == 0
    refused = onward("check", "config.yaml", flat, "objective.kind=supervised")
    assert_refused(
        refused, r"^objective\.kind: supervised needs labels at stage 1, and the images of image_folder have none"
    )
    refused = onward("check", "config.yaml", "data.split=unlabeled", "objective.kind=supervised")
    assert_refused(refused, "needs labels")
    assert_refused(
        onward("check", "config.yaml", "data.split=first"), r"^data\.split: image_folder has no training part"
    )


def test_a_data_set_that_is_not_there(folder: Path, onward: Onward, assert_refused: Refused) -> None:
    for name, words in (
        (
            "flowers102",
            r"data\.root 'images' holds no flowers102: 'images/flowers-102/jpg' is missing. Point data\.root",
        ),
        ("stanford_cars", "torchvision cannot download it"),
        ("packed", r"'images' is no packed data set"),
        ("mnist", r"holds no mnist: neither 'train-images-idx3-ubyte.gz' nor 'MNIST/raw/"),
        ("cifar11", "Did you mean 'cifar10'"),
    ):
        assert_refused(onward("check", "config.yaml", f"data.name={name}"), words)
