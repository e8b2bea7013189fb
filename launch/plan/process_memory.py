"""What the tensors of one training process take, stage by stage, and the moment at which they take most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from launch.plan.fake_stage import STEPS_PER_EPOCH, FakeStage, fake_stages, without_engines
from launch.plan.live_bytes import LiveBytes
from pipeline.config import Config
from pipeline.data.augment.resolution import view_sizes
from pipeline.data.augment.view_kinds import sizes_differ
from pipeline.data.packing import pack
from pipeline.precision import DTYPES, LossScaler
from pipeline.serial import end_to_end_step, serial_step, shared_scaler_step
from pipeline.shapes import view_shapes
from pipeline.stage.codecs import round_trip
from pipeline.stage.phases import Phases
from pipeline.stage.state import snapshot_tensors

STEPS = 2
"""The first makes gradients and the optimizer's state; from the second on each step is like the other."""
NOISE = 1.0
"""Level of the noise; where a stage has none the level has no effect."""


@dataclass(frozen=True)
class StageMemory:
    """What one stage holds between two steps, and what it keeps within one; in bytes.

    Args:
        stage: counted from 1.
        parameters: with buffers, and BYOL's target.
        optimizer: its state.
        gradients: of the parameters.
        kept: what autograd keeps for the backward when that begins.
        snapshot: the tensors of one snapshot.
    """

    stage: int
    parameters: int
    optimizer: int
    gradients: int
    kept: int
    snapshot: int


@dataclass(frozen=True)
class ProcessMemory:
    """What the tensors of one process take, in bytes.

    Args:
        stages: each that it trains, in order.
        input: the batch that enters it, which `peak` does not contain.
        output: what it sends; 0 for the last.
        peak: most at once in a step that is not the first.
        moment: when that is, such as "backward of stage 1".
    """

    stages: tuple[StageMemory, ...]
    input: int
    output: int
    peak: int
    moment: str


def process_memory(config: Config, indices: Sequence[int]) -> ProcessMemory:
    """Run two steps of a process that trains the stages `indices` on fake tensors, and read off what they take.

    Raises:
        RuntimeError: an operation of the user's own network, or loss, has no fake form.
    """
    config = without_engines(config)
    fake, live = FakeTensorMode(allow_non_fake_inputs=True), LiveBytes()
    stages = fake_stages(config, indices, live, fake)
    live.adopt(tensor for stage in stages for tensor in stage.tensors())
    with fake:
        steps, peak, moment, output = _steps(config, stages), 0, "", 0
        with live:
            for number, (batch, step) in enumerate(steps):
                live.begin()
                output = step(batch)
                if number % STEPS and live.peak > peak:
                    peak, moment = live.peak, live.peak_moment
        held = tuple(_stage_memory(stage) for stage in stages)
        last = indices[-1] == config.num_stages
        return ProcessMemory(held, _nbytes(batch), 0 if last else output, peak, moment)


def _steps(config: Config, stages: Sequence[FakeStage]) -> Iterator[tuple[Tensor, Callable[[Tensor], int]]]:
    """Of each stage that learns at other times than the others, `STEPS` steps: the batch, and what computes them."""
    phases = Phases.of(config, STEPS_PER_EPOCH)
    learners = [stage.index for stage in stages] if phases.count > 1 else [1]
    step = _way_to_step(config, stages)
    for learner in learners:
        number = (learner - 1) * phases.steps + _largest_epoch(config, phases)
        batch = _batch(config, stages[0].index, number)
        for _ in range(STEPS):
            yield batch, lambda batch, number=number: step(batch, number)


def _way_to_step(config: Config, stages: Sequence[FakeStage]) -> Callable[[Tensor, int], int]:
    """How the process goes through a step; the function returns the bytes of what is sent on."""
    levels = [NOISE] * config.num_stages
    labels = torch.zeros(config.data.batch_size, dtype=torch.int64) if config.uses_labels else None
    codec = config.link.codec

    def pipelined(batch: Tensor, number: int) -> int:
        learner, activations = stages[0].phases.learner(number), batch
        reached = [stage for stage in stages if learner is None or stage.index <= learner]
        for stage in reached:
            activations = activations if stage is stages[0] else round_trip(codec, activations)
            forward = stage if learner in (None, stage.index) else stage.relay
            activations = forward(activations, number, NOISE)
        for stage in reached:
            if learner in (None, stage.index):
                stage.update(number, labels)
        return _nbytes(activations)

    def serial(batch: Tensor, number: int) -> int:
        for _ in one_step(stages, batch, number, levels, labels=labels):
            pass
        return 0

    if not config.in_one_process:
        return pipelined
    scaler = LossScaler(torch.device("cpu"), [s.optimizer for s in stages]) if stages[0].scaler is not None else None
    one_step: Callable[..., Iterator[object]]
    if config.mode == "end_to_end":
        one_step = lambda *args, **keywords: end_to_end_step(*args, **keywords, scaler=scaler)
    elif config.precision.shared_scaler == "reference":
        one_step = lambda *args, **keywords: shared_scaler_step(*args, **keywords, scaler=scaler, codec=codec)
    else:
        one_step = lambda *args, **keywords: serial_step(*args, **keywords, codec=codec)
    return serial


def _largest_epoch(config: Config, phases: Phases) -> int:
    """The epoch whose views have the most pixels; the first of several."""
    epochs = range(phases.steps if config.data.progressive else 1)
    return max(epochs, key=lambda epoch: sum(size**2 for size in view_sizes(config.data, epoch, config.num_views)))


def _batch(config: Config, index: int, epoch: int) -> Tensor:
    """What enters stage `index`, on one replica, as it comes: `[V, B, ...]`, or packed `[1, B, total]`."""
    rows = config.data.batch_size // config.replicas_of(index)
    shapes = view_shapes(config, index, view_sizes(config.data, epoch, config.num_views))
    dtype = torch.uint8 if index == 1 else DTYPES[config.stage(index - 1).precision.dtype]
    return pack([torch.empty((rows, *shape), dtype=dtype) for shape in shapes], sizes_differ(config.data))


def _stage_memory(stage: FakeStage) -> StageMemory:
    parameters = [*stage.parameters(), *stage.buffers()]
    gradients = [p.grad for p in stage.parameters() if p.grad is not None]
    optimizer = stage.engine.tensors().values()
    return StageMemory(
        stage.index,
        _total(parameters),
        _total(optimizer),
        _total(gradients),
        stage.kept,
        _total(snapshot_tensors(stage).values()),
    )


def _total(tensors: Iterable[Tensor]) -> int:
    return sum(_nbytes(tensor) for tensor in tensors)


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
