"""What the blocks of all families have in common: they are a chain of units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class UnitCall:
    """One unit of a block, such as a residual unit or a transformer layer.

    Args:
        function: from one tensor to one tensor; equal for the same unit of the same block.
        modules: all that it runs, for their buffers.
    """

    function: Callable[[Tensor], Tensor]
    modules: Sequence[nn.Module]


class Block(nn.Module, ABC):
    """Images `[B, 3, S, S]`, maps `[B, C, H, W]` or tokens `[B, N, D]` in, one of the latter two out."""

    @abstractmethod
    def unit_calls(self) -> list[UnitCall]:
        """Called one after the other, in training mode, they compute what the block does."""
