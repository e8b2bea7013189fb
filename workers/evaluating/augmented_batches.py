"""Augmented training images for the papers' probes: a random crop, flipped half of the time, new in every epoch.

The released evaluation of the blockwise paper (`evaluate.py`) trains its classifiers on such crops, and so does the
BYOL reproduction. A view is a function of (seed, epoch, image), in whichever thread or process it is made.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import AugmentConfig, DataConfig
from pipeline.config.data import CropsConfig, JitterConfig
from pipeline.config.places import Place
from pipeline.data.augment.keyed_draws import Purpose, keyed_bits
from pipeline.data.augment.views import ViewMaker
from pipeline.data.sets.datasets import ImageDataset
from pipeline.randomness import derive_seed
from workers.evaluating.extraction import Batch, Extractor, Load
from workers.evaluating.finite_features import check_finite

CROP_AND_FLIP = AugmentConfig(
    jitter=JitterConfig(p=(0.0, 0.0)),
    gray_p=(0.0, 0.0),
    blur_p=(0.0, 0.0),
    solarize_p=(0.0, 0.0),
    crop_scale=(0.08, 1.0),
)


def augmented_batches(
    extractor: Extractor,
    images: ImageDataset,
    data: DataConfig,
    seed: int,
    epoch: int,
    batch_size: int,
    places: tuple[Place, ...],
) -> Iterator[tuple[dict[Place, Tensor], Tensor]]:
    """Features and labels of one epoch, in an order of its own.

    Args:
        extractor: of the network.
        images: with labels.
        data: how large the views are, and which backend makes them.
        seed, epoch: key the order and, with the number of the image, its crop.
        batch_size: images per batch; the last may be smaller.
        places: where features are taken.

    Returns:
        For each batch float32 `[B, D]` at each place, on the CPU, and int64 `[B]`.

    Raises:
        UserError: an image cannot be read, or features are not finite.
    """
    derived = derive_seed("evaluation", seed)
    bits = keyed_bits(derived, Purpose.ORDER, (0, 0, epoch), len(images))
    order = np.argsort(bits, kind="stable").astype(np.int64, copy=False)
    batches: list[Batch] = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    labels = np.asarray(images.labels)
    for batch, features in extractor.run(batches, augmented_load(images, data, derived, epoch), places):
        check_finite(features)
        yield features, torch.from_numpy(labels[np.asarray(batch)])


def augmented_load(images: ImageDataset, data: DataConfig, seed: int, epoch: int) -> Load:
    """Loads crops, flipped half of the time, of `data.image_size`; a function of (seed, epoch, image)."""
    settings = data.model_copy(update={"augment": CROP_AND_FLIP, "views": (CropsConfig(count=1),), "progressive": None})
    thread = threading.local()  # a maker keeps memory that only one thread may use

    def load(batch: Batch) -> NDArray[np.uint8]:
        if not hasattr(thread, "maker"):
            thread.maker = ViewMaker(settings, 1, seed)
        numbers = [int(index) for index in batch]
        images.prefetch(numbers)
        views = np.empty((len(numbers), data.image_size, data.image_size, 3), np.uint8)
        for view, index in zip(views, numbers, strict=True):
            thread.maker.make(images.pixels(index), epoch, index, [view])
        return views

    return load
