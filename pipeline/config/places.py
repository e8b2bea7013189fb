"""The place at which a feature is taken: a block, and its trunk, expansion or projector.

This file does not import torch, because the configuration uses these names too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Feature = Literal["trunk", "expansion", "projector"]
"""`trunk`: the block's output, averaged over all positions. `expansion`: the head's output before the projector, which
the released evaluation classifies. `projector`: the embedding that the loss reads."""
FEATURES: tuple[Feature, ...] = ("trunk", "expansion", "projector")


@dataclass(frozen=True, order=True)
class Place:
    """One feature of one block.

    Args:
        block: counted from 1.
        feature: of that block.
    """

    block: int
    feature: Feature

    def __str__(self) -> str:
        return f"block {self.block} {self.feature}"

    @property
    def key(self) -> str:
        """The name in files and JSON, such as `2.trunk`."""
        return f"{self.block}.{self.feature}"
