"""The augmented views that LiDAR measures on: q views of each of n images of the training set.

They are drawn like the views of the run, with other keys: the views of an image depend only on (seed, image), not on
n, q or the batch size.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from pipeline.config import DataConfig
from pipeline.config.evaluation import QualityConfig
from pipeline.data.augment.view_kinds import view_kinds
from pipeline.data.augment.views import ViewMaker
from pipeline.data.sets.datasets import ImageDataset
from pipeline.data.sets.replacement import replacements
from pipeline.errors import ConfigError, UserError
from pipeline.randomness import derive_seed


class QualityViews:
    """Makes the views; keeps its temporary memory, so use one object per thread.

    The images are evenly spaced in the data set, so that a data set sorted by class contributes every class. View j has
    the settings of the run's view j modulo V, where V is the number of the run's views with the full size: usually two,
    so that both sides of an asymmetric augmentation are measured equally often.

    Args:
        data: section `data` of the run.
        images: the training set.
        settings: section `evaluation.quality`.
        seed: of the evaluation.

    Attributes:
        indices: of the images that are measured.

    Raises:
        ConfigError: the training set has fewer images than `settings.samples`.
    """

    def __init__(self, data: DataConfig, images: ImageDataset, settings: QualityConfig, seed: int) -> None:
        length, samples = len(images), settings.samples
        if samples > length:
            problem = f"got {samples}, and the training set has {length} images"
            raise ConfigError("evaluation.quality.samples", problem, f"Give 2 to {length}")
        self.indices = [number * length // samples for number in range(samples)]
        groups = tuple(group for group in data.views if group.size in (None, data.image_size))
        whole = data.model_copy(update={"views": groups})
        self._images, self._count, self._size = images, settings.views, data.image_size
        self._kinds, self._skip = len(view_kinds(whole)), data.on_error == "skip"
        self._seed = derive_seed(seed, "quality")
        self._maker = ViewMaker(whole, self._kinds, self._seed)

    def __len__(self) -> int:
        """Number of views, n q."""
        return len(self.indices) * self._count

    def make(self, rows: Iterable[int]) -> NDArray[np.uint8]:
        """Some of the views, uint8 `[B, S, S, 3]`.

        Args:
            rows: numbers of the views; view j of image i has the number i q + j.

        Raises:
            UserError: an image cannot be decoded (`data.on_error: fail`), or no replacement can either.
        """
        chosen = [divmod(int(row), self._count) for row in rows]
        views = np.empty((len(chosen), self._size, self._size, 3), np.uint8)
        done, turn = 0, np.empty((self._kinds, self._size, self._size, 3), np.uint8)
        for number, group in groupby(chosen, key=lambda pair: pair[0]):
            index = self.indices[number]
            pixels = self._pixels(index)
            for which, pairs in groupby(group, key=lambda pair: pair[1] // self._kinds):
                self._maker.make(pixels, which, index, list(turn))
                for _, view in pairs:
                    views[done] = turn[view % self._kinds]
                    done += 1
        return views

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        try:
            return self._images.pixels(index)
        except UserError:
            if not self._skip:
                raise
        for other in replacements(self._seed, 0, index, len(self._images)):
            try:
                return self._images.pixels(other)
            except UserError:
                continue
        name = self._images.name_of(index)
        raise UserError(f"'{name}' cannot be decoded, nor can the images tried in its place: check the data set")
