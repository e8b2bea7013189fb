"""Images that have numbers and no files: what such data sets have in common, and one whose pixels lie in one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class NumberedImages:
    """Images that are known by their numbers, each read when it is asked for."""

    name: str
    """`NAME/SPLIT`."""
    labels: NDArray[np.int64]
    """`[N]`; -1 for unlabelled images."""

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """`[H, W]` or `[H, W, 3]`, contiguous; not to be written to."""
        raise NotImplementedError

    def prefetch(self, indices: Sequence[int]) -> None:
        """Does nothing: there are no files to be read ahead."""

    def image(self, index: int) -> Image.Image:
        """The image, mode L or RGB."""
        return Image.fromarray(self.pixels(index))

    def label(self, index: int) -> int:
        """Its class, counted from 0; -1 if it has none."""
        return int(self.labels[index])

    def name_of(self, index: int) -> str:
        """`NAME/SPLIT[INDEX]`."""
        return f"{self.name}[{index}]"


class ArrayImages(NumberedImages):
    """Images of one size, in memory (or mapped from a file).

    Args:
        array: uint8, `[N, H, W]` gray or `[N, H, W, 3]`; any strides.
        labels: `[N]`; -1 for unlabelled images; with one of these, the whole data set counts as unlabelled.
        num_classes: number of classes.
        name: `NAME/SPLIT`.
    """

    def __init__(self, array: NDArray[np.uint8], labels: NDArray[np.int64], num_classes: int, name: str) -> None:
        self.array, self.labels, self.name = array, labels, name
        self.num_classes = 0 if len(labels) and labels.min() < 0 else num_classes

    def __len__(self) -> int:
        return len(self.array)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """See `NumberedImages.pixels`."""
        return np.ascontiguousarray(self.array[index])
