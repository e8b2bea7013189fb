"""The random numbers of one corrupted image, from a key, independent of order, threads and processes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.randomness import generator

Floats = NDArray[np.float64]


class Draws:
    """A stream of random numbers that depends on `key` alone; every call continues it.

    Numbers are float64, because PyTorch draws float32 with other instructions on other processors, which round
    differently.
    """

    def __init__(self, *key: int | str) -> None:
        self._source = generator(torch.device("cpu"), *key)

    def normal(self, shape: tuple[int, ...], mean: float, std: float) -> Floats:
        """Gaussian numbers of this shape."""
        drawn: Floats = torch.randn(shape, generator=self._source, dtype=torch.float64).numpy()
        return drawn * std + mean

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Floats:
        """Numbers from `[low, high)`."""
        drawn: Floats = torch.rand(shape, generator=self._source, dtype=torch.float64).numpy()
        return drawn * (high - low) + low

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> NDArray[np.int64]:
        """Whole numbers from `low` to `high - 1`."""
        drawn: NDArray[np.int64] = torch.randint(low, high, shape, generator=self._source).numpy()
        return drawn

    def poisson(self, rates: Floats) -> Floats:
        """Poisson counts, one per rate."""
        drawn: Floats = torch.poisson(torch.from_numpy(rates), generator=self._source).numpy()
        return drawn
