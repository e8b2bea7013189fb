"""Steps that a block had to skip because its loss, or a gradient, was not finite; too many in a row end the run."""

from __future__ import annotations

from math import isfinite

import torch
from torch import nn

from pipeline.errors import TrainingError


class KeptBuffers:
    """The buffers of a module, mostly of batch norm, and their values before the step."""

    def __init__(self, module: nn.Module) -> None:
        self._buffers = [buffer for buffer in module.buffers() if buffer.numel()]
        self._before = [buffer.clone() for buffer in self._buffers]

    def keep(self) -> None:
        """Copy them as they are now."""
        if self._buffers:  # a transformer has none, and its head may not
            torch._foreach_copy_(self._before, self._buffers)

    def put_back(self) -> None:
        """Undo what has happened to them since `keep`."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._before)


class SkipCounter:
    """Counts for one stage.

    Args:
        stage: counted from 1, for the message.
        limit: steps in a row at which to give up.
    """

    def __init__(self, stage: int, limit: int) -> None:
        self.stage, self.limit = stage, limit
        self.in_a_row = 0

    def count(self, moved: bool, loss: float | None, learning_rate: float) -> None:
        """Count one more step; raises `TrainingError` after too many in a row that changed no parameter."""
        self.in_a_row = 0 if moved else self.in_a_row + 1
        if self.in_a_row < self.limit:
            return
        reason = "a gradient overflowed" if loss is not None and isfinite(loss) else f"the loss is {loss}"
        raise TrainingError(
            f"{reason}, and {self.in_a_row} steps in a row were skipped (train.max_skipped). Lower optimizer.lr "
            f"(now {learning_rate:g}) or warm up longer (optimizer.warmup_epochs), for this stage alone with "
            f"stages.{self.stage}.optimizer"
        )
