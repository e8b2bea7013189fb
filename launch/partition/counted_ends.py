"""Counts what follows the last unit of a stage in a step, without computing it: noise, head, loss, optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from launch.partition.counted_units import recorded
from launch.partition.finest import FinestRun
from launch.partition.kernel_calls import CallRecorder, KernelCalls
from launch.plan.fake_stage import FakeStage
from launch.plan.process_memory import NOISE
from pipeline.data.augment.view_kinds import sizes_differ
from pipeline.data.packing import pack
from pipeline.recompute import RepeatedForward
from pipeline.replicas import SOLO


@dataclass(frozen=True, kw_only=True)
class EndCalls:
    """What the end of a stage does in a step of some images, with all of their views.

    Args:
        forward: noise and head, with those of BYOL's target, and the copy of the views that is sent.
        backward: of noise and head.
        loss: with its backward pass, as far as the embeddings.
        step: optimizer, and what moves BYOL's target.
        parameters: bytes of gradients.
        kept: bytes that autograd keeps for the backward pass.
        state: bytes of the optimizer's state.
    """

    forward: KernelCalls = field(default_factory=KernelCalls)
    backward: KernelCalls = field(default_factory=KernelCalls)
    loss: KernelCalls = field(default_factory=KernelCalls)
    step: KernelCalls = field(default_factory=KernelCalls)
    parameters: int = 0
    kept: int = 0
    state: int = 0


def count_end(run: FinestRun, index: int, batches: Sequence[int], cuda: bool) -> list[EndCalls]:
    """Count the end of a stage whose last unit is `index`, counted from 1; arguments and errors as `count_unit`."""
    if run.stage(index).frozen:
        return [EndCalls() for _ in batches]
    fake, record = FakeTensorMode(allow_non_fake_inputs=True), CallRecorder(casts=not cuda)
    stage = _StageEnd(record, fake, run, index, cuda)
    record.adopt(stage.tensors())
    with recorded(record, fake, cuda):
        stage.whole_step(min(*batches, 2 * (stage.head_chunk or max(batches))))  # makes the optimizer's state
        return [_counted(stage, record, rows) for rows in batches]


def _counted(stage: _StageEnd, record: CallRecorder, rows: int) -> EndCalls:
    record.calls.clear()
    kept, calls = stage.whole_step(rows), record.calls
    return EndCalls(
        forward=calls["noise"] + calls["head"] + calls["update"],
        backward=calls["backward of the head"],
        loss=calls["loss"] + calls["backward"],
        step=calls["step"] + calls["optimizer"],
        parameters=sum(p.grad.nbytes for p in stage.parameters() if p.grad is not None),
        kept=kept,
        state=sum(tensor.nbytes for tensor in stage.engine.tensors().values()),
    )


class _StageEnd(FakeStage):
    """A stage whose block has been left out; the backward pass stops at the embeddings, and goes on when asked to."""

    def __init__(self, record: CallRecorder, fake: FakeTensorMode, run: FinestRun, index: int, cuda: bool) -> None:
        self._embedded: list[tuple[Tensor, Tensor]] = []
        super().__init__(record, fake, run.config, index, SOLO, cuda=cuda)
        self._record, self._finest = record, run
        self._has_patch = run.of.has_patch
        self.head_chunk = None if self.head is None else self.head.chunk
        self.block = nn.Identity()  # type: ignore[assignment]
        if self.target is not None and self._follower is not None:
            self.target.block, self._follower.block = nn.Identity(), nn.Identity()

    def whole_step(self, rows: int) -> int:
        """Noise, head, loss, their backward pass, and the optimizer; the bytes that were kept."""
        record, step = self._record, 0
        shapes = self._finest.shapes(self.index + 1)
        blocks = [torch.empty((rows, *shape), dtype=self.compute.activations) for shape in shapes]
        blocks = [self.compute.in_memory_format(block).requires_grad_() for block in blocks]
        before, record.moment = record.now, "noise"
        with self.compute.full_precision():
            # Noise on the input of a stage is counted as one on its output, which the next stage makes.
            self.outputs = [self.noise(block, step, number, NOISE) for number, block in enumerate(blocks, 1)]
        self.kept = record.now - before
        pack([output.detach() for output in self.outputs], sizes_differ(self._finest.of.data))
        if self.head is None:
            self.outputs = []
            return self.kept
        if self.target is not None:
            self._target_inputs = [output.detach() for output in self.outputs[:2]]
        labels = torch.zeros(rows, dtype=torch.int64) if self._finest.of.uses_labels else None
        record.moment = "update"
        self.backward(step, labels)
        record.moment = "backward of the head"
        pairs = [(embedding, leaf.grad) for embedding, leaf in self._embedded if leaf.grad is not None]
        self._embedded = []
        embeddings, gradients = zip(*pairs, strict=True)
        torch.autograd.backward(embeddings, gradients)
        record.moment = "step"
        self.finish(step)
        return self.kept

    def _embeddings(self) -> tuple[list[RepeatedForward], list[Tensor]]:
        heads, embeddings = super()._embeddings()
        leaves = [embedding.detach().requires_grad_() for embedding in embeddings]
        self._embedded = list(zip(embeddings, leaves, strict=True))
        return heads, leaves
