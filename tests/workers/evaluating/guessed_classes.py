"""Images that say nothing about their classes, and an untrained network on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from workers.evaluating.source import FeatureSource

from pipeline.serial import build_stages
from tests.pipeline.small import small_config
from workers.evaluating.context import Context

CPU = torch.device("cpu")


SIDE, TEST, CLASSES = 16, 20, ("ape", "bee", "cat")


TWO = {"names": ["gaussian_noise", "contrast"], "severities": [5, 2]}


def pixels(number: int, side: int = SIDE, gray: bool = False) -> NDArray[np.uint8]:
    shape = (side, side) if gray else (side, side, 3)
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def images(root: Path, gray: bool = False, train: int = 60) -> Path:
    """A folder whose images say nothing about their classes, so that classifiers err a lot; every third is larger."""
    for part, count in (("train", train), ("val", TEST)):
        for index in range(count):
            number = index + 1000 * (part == "val")
            name = CLASSES[index % len(CLASSES)]
            save(root / part / name / f"{index:03d}.png", pixels(number, 24 if index % 3 == 1 else SIDE, gray))
    return root


def context(root: Path, corruptions: dict[str, Any] | None = None, **keys: Any) -> Context:
    """Four blocks as they are initialised, on `images(root)`."""
    evaluation = {"corruptions": corruptions or TWO, "batch_size": 7, "workers": 1, "cache": False, **keys}
    data = {"batch_size": 8, "image_size": SIDE, "name": "image_folder", "root": str(root)}
    config = small_config(evaluation=evaluation, data=data)
    stages = [stage.eval() for stage in build_stages(config, 1)]
    source = FeatureSource(config, stages, CPU, root / "features", print)
    notes: list[str] = []
    found = Context(config, stages, CPU, root, source, config.data, config.data.name, note=notes.append)
    found.notes = notes  # type: ignore[attr-defined]
    return found
