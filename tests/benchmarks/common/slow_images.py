"""A data set whose images take a known time to be read, and no processor: what a slow disk is to a feed."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

COUNT, SIDE = 4096, 28
SECONDS = 8e-3
"""To read an image."""


class SlowImages:
    """Noise, the same for one index always; without classes. `data.name` names it."""

    def __init__(self, part: str) -> None:
        self.targets = [0] * COUNT

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        time.sleep(SECONDS)
        return np.random.default_rng(index).integers(256, size=(SIDE, SIDE), dtype=np.uint8)
