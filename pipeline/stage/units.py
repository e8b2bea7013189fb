"""A block and its head run unit by unit, where a stage keeps only the input of each unit for its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pipeline.backbones.block import UnitCall
from pipeline.backbones.heads import Head
from pipeline.recompute import Function, Recomputation


class RecomputedUnits:
    """Calls units so that each is computed again when the backward pass reaches it.

    Args:
        compiled: compiles a unit if that was asked for; a whole block cannot be, because units are called from outside.
        draws: units may draw random numbers from PyTorch's generators.
    """

    def __init__(self, compiled: Callable[[Function], Function], draws: bool) -> None:
        self._compiled, self._recomputation = compiled, Recomputation(draws)
        self._made: dict[Function, Function] = {}

    def run(self, calls: Sequence[UnitCall], x: Tensor, onward: Function, modules: Sequence[nn.Module]) -> Tensor:
        """All units, and what is done to the output of the last, which is computed again together with it.

        Args:
            calls: of a block.
            x: its input.
            onward: of the output; never compiled.
            modules: that `onward` runs.
        """
        for call in calls[:-1]:
            x = self._recomputation.run(self._function(call.function), x, call.modules)
        last = self._function(calls[-1].function)
        return self._recomputation.run(lambda x: onward(last(x)), x, [*calls[-1].modules, *modules])

    def embedding(self, head: Head, output: Tensor) -> Tensor:
        """The embedding `[B, D]` of a block's output, whose feature is computed again."""
        features = self._recomputation.run(self._function(head.features), output, [head])
        embedding: Tensor = head.projector(features)
        return embedding

    def _function(self, unit: Function) -> Function:
        if unit not in self._made:
            self._made[unit] = self._compiled(unit)
        return self._made[unit]
