"""Where an embedding is taken: a block, and which of its features; one name for all that measures.

No torch here, because the configuration names features too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Feature = Literal["trunk", "expansion", "projector"]
"""`trunk`: the block's output, averaged over all positions. `expansion`: what the head gives before it projects, which
the released evaluation classifies. `projector`: the embedding that the loss sees."""
FEATURES: tuple[Feature, ...] = ("trunk", "expansion", "projector")


@dataclass(frozen=True, order=True)
class Place:
    """One feature of one block.

    Args:
        block: counted from 1.
        feature: which.
    """

    block: int
    feature: Feature

    def __str__(self) -> str:
        return f"block {self.block} {self.feature}"

    @property
    def key(self) -> str:
        """For files and JSON, such as `2.trunk`."""
        return f"{self.block}.{self.feature}"
