"""What the tensors of one training process take, stage by stage, and the moment at which they take most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from launch.plan.account import ProcessAccount, StageAccount
from launch.plan.fake_stage import STEPS_PER_EPOCH, FakeStage, fake_stages, without_engines
from launch.plan.live_bytes import LiveBytes
from pipeline.config import Config
from pipeline.data.augment.resolution import view_sizes
from pipeline.data.augment.view_kinds import sizes_differ
from pipeline.data.packing import pack
from pipeline.serial import step_function
from pipeline.shapes import view_shapes
from pipeline.stage.codecs import round_trip
from pipeline.stage.phases import Phases
from pipeline.stage.state import snapshot_tensors
from workers.topology.rendezvous import link_spec

STEPS = 2
"""The first makes gradients and the optimizer's state; from the second on each step is like the other."""
CPU = torch.device("cpu")
NOISE = 1.0
"""Level of the noise; where a stage has none the level has no effect."""


def process_memory(config: Config, indices: Sequence[int], workspaces: bool = True) -> ProcessAccount:
    """Run steps of a process that trains the stages `indices` on fake tensors, and read off what they take.

    Args:
        config: of the run.
        indices: the stages, counted from 1.
        workspaces: see `LiveBytes`.

    Raises:
        RuntimeError: an operation of the user's own network, or loss, has no fake form.
    """
    config = without_engines(config)
    fake, live = FakeTensorMode(allow_non_fake_inputs=True), LiveBytes(workspaces)
    stages = fake_stages(config, indices, live, fake)
    live.adopt(tensor for stage in stages for tensor in stage.tensors())
    peak, moment = 0, ""
    with fake:
        step = _step_function(config, stages)
        for number in _steps(config, stages):
            batch = _batch(config, indices[0], number)
            entered = live.adopt([batch])
            live.now -= entered  # it is counted as what it is: a buffer of the link or of the feed
            with live:
                for _ in range(STEPS):
                    live.begin()
                    output = step(batch, number)
            if live.peak > peak:
                peak, moment = live.peak, live.peak_moment
        memory = tuple(_stage_memory(stage) for stage in stages)
    sent = 0 if indices[-1] == config.num_stages else output
    return ProcessAccount(memory, batch.nbytes, sent, peak, moment)


def _steps(config: Config, stages: Sequence[FakeStage]) -> list[int]:
    """A step with the largest views; in mode sequential one for each stage that learns."""
    phases = Phases.of(config, STEPS_PER_EPOCH)
    learners = [stage.index for stage in stages] if phases.count > 1 else [1]
    return [(learner - 1) * phases.steps + _largest_epoch(config, phases) for learner in learners]


def _step_function(config: Config, stages: Sequence[FakeStage]) -> Callable[[Tensor, int], int]:
    """How the process goes through a step: from the batch and its number to the bytes of what is sent on."""
    labels = torch.zeros(config.data.batch_size, dtype=torch.int64) if config.uses_labels else None
    serial = step_function(config, stages, CPU) if config.in_one_process else None
    levels = [NOISE] * config.num_stages

    def in_one_process(batch: Tensor, number: int) -> int:
        assert serial is not None
        for _ in serial(stages, batch, number, levels, labels):
            pass
        return 0

    def pipelined(batch: Tensor, number: int) -> int:
        learner, activations = stages[0].phases.learner(number), batch
        reached = [stage for stage in stages if learner is None or stage.index <= learner]
        for stage in reached:
            activations = activations if stage is stages[0] else round_trip(config.link.codec, activations)
            forward = stage if learner in (None, stage.index) else stage.relay
            activations = forward(activations, number, NOISE)
        for stage in reached:
            if learner in (None, stage.index):
                stage.update(number, labels)
        return activations.nbytes

    return in_one_process if config.in_one_process else pipelined


def _largest_epoch(config: Config, phases: Phases) -> int:
    """The epoch whose views have the most pixels; the first of several."""
    epochs = range(phases.steps if config.data.progressive else 1)
    return max(epochs, key=lambda epoch: sum(size**2 for size in view_sizes(config.data, epoch, config.num_views)))


def _batch(config: Config, index: int, epoch: int) -> Tensor:
    """What enters stage `index`, on one replica, as it comes: `[V, B, ...]`, or packed `[1, B, total]`."""
    rows = config.data.batch_size // config.replicas_of(index)
    shapes = view_shapes(config, index, view_sizes(config.data, epoch, config.num_views))
    dtype = link_spec(config, index).dtype
    return pack([torch.empty((rows, *shape), dtype=dtype) for shape in shapes], sizes_differ(config.data))


def _stage_memory(stage: FakeStage) -> StageAccount:
    parameters = [*stage.parameters(), *stage.buffers()]
    gradients = [p.grad for p in stage.parameters() if p.grad is not None]
    optimizer = stage.engine.tensors().values()
    return StageAccount(
        stage=stage.index,
        parameters=_total(parameters),
        optimizer=_total(optimizer),
        gradients=_total(gradients),
        kept=stage.kept,
        snapshot=_total(snapshot_tensors(stage).values()),
    )


def _total(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
