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
from pipeline.engines import build_engine, idle_engine
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
        trained = nn.ModuleDict({"block": self._block})
        self._engine = build_engine(stage, trained, SOLO, CPU) if self._learns else idle_engine()
        if cuda:
            work_as_on_cuda(self._engine.optimizer)
        scaled = stage.precision.dtype == "fp16" and self._learns
        self._scaler = LossScaler(CPU, [self._engine.optimizer]) if scaled else None
        self._of_step, self._state, self._stepped = KernelCalls(), 0, False

    def count(self, rows: int) -> UnitCalls:
        record = CallRecorder(casts=not self._cuda)
        record.adopt([*self._block.parameters(), *self._block.buffers()])
        with recorded(record, self._fake, self._cuda):
            images = self._images(rows)
            record.adopt(images)
            with torch.set_grad_enabled(not self._frozen):
                kept = self._pass(record, images)
            if self._target is not None:
                record.moment = "target"
                with self._compute.autocast():
                    self._target([self._inputs.prepared(image) for image in images[:2]])
            if self._learns and not self._stepped:
                self._step(record)
        calls, parameters = record.calls, self._block.parameters()
        return UnitCalls(
            forward=calls["forward"],
            backward=calls["backward"],
            first_backward=calls["first backward"],
            target=calls["target"],
            step=self._of_step,
            parameters=sum(p.grad.nbytes for p in parameters if p.grad is not None),
            kept=kept,
            output=self._output(rows),
            state=self._state,
        )

    def _images(self, rows: int) -> list[Tensor]:
        dtype = torch.uint8 if self._index == 1 else DTYPES[self._run.stage(self._index).precision.dtype]
        views = [torch.empty((rows, *shape), dtype=dtype) for shape in self._run.shapes(self._index)]
        return views if self._index == 1 else [self._compute.in_memory_format(view) for view in views]

    def _output(self, rows: int) -> int:
        if self._index == self._run.config.num_stages:
            return 0
        return rows * self._compute.activations.itemsize * sum(map(prod, self._run.shapes(self._index + 1)))

    def _pass(self, record: CallRecorder, images: Sequence[Tensor]) -> int:
        """Forward and backward; what is kept in between. The second backward pass is that of a stage's first unit."""
        if self._index > 1 and not self._frozen:
            images = [image.detach().requires_grad_() for image in images]
        before, record.moment = record.now, "forward"
        outputs = [self._through(image) for image in images]
        kept = record.now - before
        gradients = [torch.empty_like(output) for output in outputs]
        parameters = [parameter for parameter in self._block.parameters() if parameter.requires_grad]
        if outputs[0].requires_grad:
            record.moment = "backward"
            torch.autograd.backward(outputs, gradients, retain_graph=True)
        if self._learns:
            record.moment = "first backward"
            self._engine.zero_grad()
            torch.autograd.backward(outputs, gradients, inputs=parameters)
        return kept if outputs[0].requires_grad else 0

    def _through(self, image: Tensor) -> Tensor:
        x = self._inputs.prepared(image)
        with self._compute.autocast():
            output: Tensor = self._block(x)
        return output.to(self._compute.activations)

    def _step(self, record: CallRecorder) -> None:
        """Two steps of the optimizer: the first makes its state, the second is like all that follow."""
        for moment in ("first step", "step"):
            record.moment = moment
            if self._scaler:
                self._scaler.scale(torch.zeros(()))  # which makes the scale, by the first loss in a stage
                self._scaler.unscale()
            if self._clip is not None:
                self._engine.clip(self._clip)
            _ = self._scaler.step() if self._scaler else self._engine.step()
            if self._target is not None:
                self._target.move_towards(self._block, nn.Identity(), 0.5)
        self._of_step, self._stepped = record.calls["step"], True
        self._state = sum(tensor.nbytes for tensor in self._engine.tensors().values())
