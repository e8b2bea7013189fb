"""One training process of a run with the product's own stages, on tensors that have sizes and no memory.

`pipeline.stage.fake` makes them; here they note what autograd keeps, and work on as much at once as on a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer

from launch.plan.live_bytes import LiveBytes
from pipeline.config import Config
from pipeline.engines import TorchEngine
from pipeline.optim.foreach import PIECE_BYTES
from pipeline.replicas import SOLO, ReplicaGroup
from pipeline.stage.fake import FakeReplicaGroup, StageWithoutMemory

STEPS_PER_EPOCH = 1
"""Of the fake run, so that the number of a step is that of its epoch, which decides how large the views are."""


class FakeStage(StageWithoutMemory):
    """A stage whose parameters and buffers are fake, which notes what autograd keeps for its backward.

    Args:
        live: counts; its mode is the one that the stage runs in.
        fake: makes the tensors fake.
        config, index, group: as `Stage` takes them.
        cuda: optimizers work on as many parameters at once as they do on a GPU: PyTorch's own on all.
    """

    _live: LiveBytes
    kept: int
    """Bytes that autograd keeps when the backward begins."""

    def __init__(
        self, live: LiveBytes, fake: FakeTensorMode, config: Config, index: int, group: ReplicaGroup, *, cuda: bool
    ) -> None:
        self._live = live
        self.kept, self._after_forward = 0, 0
        super().__init__(fake, config, index, STEPS_PER_EPOCH, team=group)
        self.span = self._span
        if cuda:
            work_as_on_cuda(self.optimizer)

    def forward(self, batch: Tensor | Sequence[Tensor], step: int, noise_level: float) -> Tensor:
        """As `Stage.forward`."""
        self._live.moment, before = f"forward of stage {self.index}", self._live.now
        onward = super().forward(batch, step, noise_level)
        self.kept = self._live.now - before - onward.untyped_storage().nbytes()
        return onward

    def backward(self, step: int, *inputs: Any, **keywords: Any) -> Tensor:
        """As `Stage.backward`."""
        self._after_forward = self._live.now
        return super().backward(step, *inputs, **keywords)

    def tensors(self) -> list[Tensor]:
        """What is there before the first step."""
        return [*self.parameters(), *self.buffers(), *self._buffers_kept._before, *self.summed()]

    def summed(self) -> list[Tensor]:
        """What gradients are copied into, to be summed over the replicas."""
        gradients = self.engine._sum if isinstance(self.engine, TorchEngine) else None
        return [bucket._flat for bucket in gradients.buckets] if gradients else []

    @contextmanager
    def _span(self, what: str) -> Iterator[None]:
        before, self._live.moment = self._live.moment, f"{what} of stage {self.index}"
        if what == "backward":
            self.kept += self._live.now - self._after_forward
        yield
        self._live.moment = before


def work_as_on_cuda(optimizer: Optimizer) -> None:
    """Let an optimizer of parameters on a CPU work on as many of them at once as it does on a GPU."""
    for settings in optimizer.param_groups:
        settings.update(foreach=True) if "foreach" in settings else None
    if hasattr(optimizer, "piece_bytes"):
        optimizer.piece_bytes = PIECE_BYTES


def fake_stages(
    config: Config, indices: Sequence[int], live: LiveBytes, fake: FakeTensorMode, cuda: bool = False
) -> list[FakeStage]:
    """The stages of one process; its replicas are `config.replicas_of` the first."""
    size = config.replicas_of(indices[0])
    group: ReplicaGroup = FakeReplicaGroup(0, size) if size > 1 else SOLO
    stages = [FakeStage(live, fake, config, index, group, cuda=cuda) for index in indices]
    last = stages[-1]
    if config.mode == "end_to_end" and last.target is not None:  # as `build_stages` does
        with warnings.catch_warnings():  # copying a fake tensor asks for its address
            warnings.simplefilter("ignore")
            last.follow_with_target(nn.Sequential(*(stage.block for stage in stages)))
        last.remember_buffers()
    return stages
