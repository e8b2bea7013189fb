"""Counts what one unit of the backbone has a device do in a step, without computing it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from launch.partition.finest import FinestRun
from launch.partition.kernel_calls import CallRecorder, KernelCalls
from launch.plan.autocast_of_cuda import autocast_of_cuda
from launch.plan.fake_stage import STEPS_PER_EPOCH, work_as_on_cuda
from pipeline.config.objectives import BYOLConfig
from pipeline.engines import build_engine
from pipeline.precision import DTYPES, Compute, LossScaler
from pipeline.replicas import SOLO
from pipeline.stage.fake import make_fake
from pipeline.stage.inputs import StageInputs
from pipeline.stage.target_network import Target

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class UnitCalls:
    """What a unit does in a step of some images, with all of their views.

    Args:
        forward: its own, without what the link's input is made ready by; with it in the first unit of the network.
        backward: with the gradient of its input.
        first_backward: without, as the first unit of a stage has it.
        target: the forward pass of BYOL's target, or nothing.
        step: of the optimizer, and of what moves BYOL's target.
        parameters: bytes of gradients.
        kept: bytes that autograd keeps for the backward pass, with its output and without its input.
        output: bytes of its output, as a link carries it without a codec; 0 for the last unit.
        state: bytes of the optimizer's state.
    """

    forward: KernelCalls = field(default_factory=KernelCalls)
    backward: KernelCalls = field(default_factory=KernelCalls)
    first_backward: KernelCalls = field(default_factory=KernelCalls)
    target: KernelCalls = field(default_factory=KernelCalls)
    step: KernelCalls = field(default_factory=KernelCalls)
    parameters: int = 0
    kept: int = 0
    output: int = 0
    state: int = 0


@contextmanager
def recorded(record: CallRecorder, fake: FakeTensorMode, cuda: bool) -> Iterator[None]:
    """Within it operations are noted and not computed; random numbers of the process stay as they are."""
    with torch.random.fork_rng(devices=[]), autocast_of_cuda() if cuda else nullcontext(), fake, record:
        yield


def count_unit(run: FinestRun, index: int, batches: Sequence[int], cuda: bool) -> list[UnitCalls]:
    """Count one unit.

    Args:
        run: of which it is.
        index: of the unit, counted from 1.
        batches: images of a step, once for each number.
        cuda: it is counted as on a GPU: autocast and optimizers are those of CUDA.

    Raises:
        RuntimeError: an operation of the user's own network has no fake form.
    """
    unit = _UnitSteps(run, index, cuda)
    return [unit.count(rows) for rows in batches]


class _UnitSteps:
    def __init__(self, run: FinestRun, index: int, cuda: bool) -> None:
        self._run, self._index, self._cuda = run, index, cuda
        stage = run.stage(index)
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._compute = Compute(stage.precision, CPU, torch.float32)
        self._inputs = StageInputs(run.config, index, STEPS_PER_EPOCH, self._compute)
        self._block = run.block(index)
        byol = isinstance(stage.objective, BYOLConfig) and not stage.frozen
        self._target = Target(self._block, nn.Identity()) if byol else None
        for module in (self._block, self._target):
            if module is not None:
                self._compute.prepare(module)
                make_fake(module, self._fake)
        self._block.train(not stage.frozen).requires_grad_(not stage.frozen)
        self._learns = any(parameter.requires_grad for parameter in self._block.parameters())
        self._frozen, self._clip = stage.frozen, stage.optimizer.clip_norm
        self._engine = build_engine(stage, nn.ModuleDict({"block": self._block}), SOLO, CPU)
        if cuda:
            work_as_on_cuda(self._engine.optimizer)
        scaled = stage.precision.dtype == "fp16" and self._learns
        self._scaler = LossScaler(CPU, [self._engine.optimizer]) if scaled else None

    def count(self, rows: int) -> UnitCalls:
        record = CallRecorder(casts=not self._cuda)
        record.adopt([*self._block.parameters(), *self._block.buffers()])
        with recorded(record, self._fake, self._cuda):
            images = self._images(rows)
            record.adopt(images)
            if self._frozen:
                with torch.no_grad():
                    self._forward(record, images, "forward")
                return UnitCalls(forward=record.calls["forward"], output=self._output(rows))
            kept = self._pass(record, images, "", inner=True)
            if self._target is not None:
                record.moment = "target"
                with self._compute.autocast():
                    self._target([self._inputs.prepared(image) for image in images[:2]])
            self._pass(record, images, "first ", inner=False)  # and with the optimizer's state of the first
            state = self._engine.tensors().values()
        return UnitCalls(
            forward=record.calls["forward"],
            backward=record.calls["backward"],
            first_backward=record.calls["first backward"],
            target=record.calls["target"],
            step=record.calls["first step"],
            parameters=sum(p.grad.nbytes for p in self._block.parameters() if p.grad is not None),
            kept=kept,
            output=self._output(rows),
            state=sum(tensor.nbytes for tensor in state),
        )

    def _images(self, rows: int) -> list[Tensor]:
        dtype = torch.uint8 if self._index == 1 else DTYPES[self._run.stage(self._index).precision.dtype]
        views = [torch.empty((rows, *shape), dtype=dtype) for shape in self._run.shapes(self._index)]
        return views if self._index == 1 else [self._compute.in_memory_format(view) for view in views]

    def _output(self, rows: int) -> int:
        if self._index == self._run.config.num_stages:
            return 0
        return rows * self._compute.activations.itemsize * sum(map(prod, self._run.shapes(self._index + 1)))

    def _forward(self, record: CallRecorder, images: Sequence[Tensor], moment: str) -> list[Tensor]:
        record.moment, outputs = moment, []
        for image in images:
            x = self._inputs.prepared(image)
            with self._compute.autocast():
                output: Tensor = self._block(x)
            outputs.append(output.to(self._compute.activations))
        return outputs

    def _pass(self, record: CallRecorder, images: Sequence[Tensor], of: str, inner: bool) -> int:
        """A step under `of` and "forward", "backward", "step"; what is kept for its backward pass."""
        inner = inner and self._index > 1
        images = [image.detach().requires_grad_() if inner else image for image in images]
        before = record.now
        outputs = self._forward(record, images, f"{of}forward")
        kept = record.now - before
        gradients = [torch.empty_like(output) for output in outputs]
        if outputs[0].requires_grad:
            record.moment = f"{of}backward"
            self._engine.zero_grad()
            torch.autograd.backward(outputs, gradients)
        record.moment = f"{of}step"
        if self._learns:
            self._step()
        return kept

    def _step(self) -> None:
        if self._scaler:
            self._scaler.unscale()
        if self._clip is not None:
            self._engine.clip(self._clip)
        _ = self._scaler.step() if self._scaler else self._engine.step()
        if self._target is not None:
            self._target.move_towards(self._block, nn.Identity(), 0.5)
