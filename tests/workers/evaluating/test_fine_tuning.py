"""The images of few-label fine-tuning: each with its own label, cropped anew every epoch and alike every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import workers.evaluating.fine_tuning as module
from pipeline.config.places import Place
from pipeline.evaluation.feature_set import FeatureSet
from pipeline.evaluation.few_label import FineTuned, score
from pipeline.evaluation.task import Task
from pipeline.serial import build_stages
from tests.pipeline.small import small_config
from workers.evaluating.context import Context
from workers.evaluating.feature_source import FeatureSource
from workers.evaluating.fine_tuning import fine_tuned_accuracy

CPU = torch.device("cpu")
COUNT, PLACE = 20, Place(1, "trunk")
LABELS = torch.arange(3).repeat_interleave(COUNT)
"""Dark, gray and bright images; their brightness names each, `2 * number + 80 * label`."""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    for split in ("train", "val"):
        for label in range(3):
            place = tmp_path / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(COUNT):
                pixels = np.full((16, 16, 3), 2 * number + 80 * label, np.uint8)
                Image.fromarray(pixels).save(place / f"{number:02}.png")
    data = {"name": "image_folder", "root": str(tmp_path), "batch_size": 8, "image_size": 16}
    few = {"epochs": 12, "lr_classifier": 0.1}
    config = small_config(data=data, evaluation={"few_labels": few, "batch_size": 7, "cache": False})
    stages = [stage.eval() for stage in build_stages(config, 1)]
    return Context(config, stages, CPU, tmp_path, FeatureSource(config, stages, CPU), config.data, "gray")


def task(known: torch.Tensor) -> Task:
    """Of images of which some have no label."""
    labels = torch.where(known, LABELS, -1)
    features = FeatureSet({PLACE: torch.zeros(3 * COUNT, 8)}, labels)
    return Task(features, features, "gray")


KNOWN = torch.arange(3 * COUNT) % 4 != 1


def brightness_fits(images: torch.Tensor, labels: torch.Tensor) -> bool:
    levels = images.float().mean(dim=(1, 2, 3))
    return bool(((levels / 80).floor().long() == labels).all())


def test_every_image_comes_with_its_label(context: Context) -> None:
    labelled = task(KNOWN)
    rows = torch.arange(3, 33)
    (batch,) = module._training(context, labelled, rows, seed=0, epoch=0)
    assert batch[0].shape == (30, 16, 16, 3)
    assert brightness_fits(*batch)
    assert torch.equal(batch[1].sort().values, labelled.train_labels[rows].sort().values)
    tested = list(module._testing(context, labelled))
    assert [len(labels) for _, labels in tested] == [7] * 6 + [3]
    assert all(brightness_fits(*images) for images in tested)


def test_crops_are_new_every_epoch_and_the_same_every_time(context: Context) -> None:
    (context.run / "train" / "class0" / "00.png").unlink()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(context.run / "train" / "class0" / "00.png")
    known = task(torch.ones_like(KNOWN))
    first, again, later = (next(module._training(context, known, torch.arange(1), 4, epoch))[0] for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert first.shape == (1, 16, 16, 3)


def test_it_trains_a_copy_and_tests_it_at_the_end(context: Context) -> None:
    labelled, rows = task(torch.ones_like(KNOWN)), torch.arange(0, 60, 2)
    before = [{name: tensor.clone() for name, tensor in stage.state_dict().items()} for stage in context.stages]
    context.__dict__["train"] = labelled.train
    untrained = FineTuned(context.stages, PLACE, 8, 3, seed=4)
    found = fine_tuned_accuracy(context, labelled, PLACE, rows, seed=4)
    assert found[0] > score(untrained, module._testing(context, labelled))[0]
    assert found == fine_tuned_accuracy(context, labelled, PLACE, rows, seed=4)
    for stage, state in zip(context.stages, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in stage.state_dict().items())
