"""What the tensors of one training process take, stage by stage, and the moment at which they take most.

The tensors are those of a CPU, since a backward pass on fake tensors of a GPU asks for one. For a process on a GPU,
`cuda=True`, they stand for its own:

- The same by construction: parameters, gradients, the optimizer's state, the loss and its embeddings, in full
  precision on both; what convolutions, linear layers, batch norm, ReLU, pooling and attention keep. Batch norm keeps
  its input in half precision and float32 statistics on both.
- Modelled: autocast, whose list for CUDA computes more in float32 (`launch.plan.autocast_of_cuda`: layer norm keeps a
  float32 copy of its input), and optimizers, of which PyTorch's own work there on all parameters at once, with
  copies, and LARS on lists of up to 64 MiB.
- Not in it: workspaces of cuDNN and cuBLAS, the context, and the allocator's rounding and fragments. Dropout keeps one
  byte for each number there, and a number of the input's dtype here. Padding by reflection or replication, pooling
  and linear algebra of the CPU's list stay in float32 here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from launch.plan.account import ProcessAccount, StageAccount
from launch.plan.autocast_of_cuda import autocast_of_cuda
from launch.plan.fake_stage import STEPS_PER_EPOCH, FakeStage, fake_stages
from launch.plan.live_bytes import LiveBytes
from launch.plan.online import measure_online, online_bytes
from pipeline.config import Config
from pipeline.data.augment.resolution import view_sizes
from pipeline.data.augment.view_kinds import sizes_differ
from pipeline.data.packing import pack
from pipeline.serial import step_function
from pipeline.shapes import view_shapes
from pipeline.stage.codecs import round_trip
from pipeline.stage.fake import without_engines
from pipeline.stage.phases import Phases
from pipeline.stage.state import snapshot_tensors
from workers.topology.rendezvous import link_spec

CPU = torch.device("cpu")
NOISE = 1.0
"""Level of the noise; where a stage has none the level has no effect."""


def process_memory(
    config: Config, indices: Sequence[int], workspaces: bool = True, *, cuda: bool = False
) -> ProcessAccount:
    """Run steps of a process that trains the stages `indices` on fake tensors, and read off what they take.

    Args:
        config: of the run.
        indices: the stages, counted from 1.
        workspaces: see `LiveBytes`; those of a CPU, so without effect where `cuda`.
        cuda: the process computes on a GPU; see above.

    Raises:
        RuntimeError: an operation of the user's own network, or loss, has no fake form.
    """
    config = without_engines(config)
    fake, live = FakeTensorMode(allow_non_fake_inputs=True), LiveBytes(workspaces and not cuda, casts=not cuda)
    stages = fake_stages(config, indices, live, fake, cuda)
    live.adopt(tensor for stage in stages for tensor in stage.tensors())
    measure_online(config, stages, live, fake, STEPS_PER_EPOCH)
    peak, moment = 0, ""
    with autocast_of_cuda() if cuda else nullcontext(), fake:
        step = _step_function(config, stages)
        for number in _steps(config, stages):
            batch = _batch(config, indices[0], number)
            entered = live.adopt([batch])
            live.now -= entered  # it is counted as what it is: a buffer of the link or of the feed
            with live:
                for rows in (_few(config, indices), batch.shape[1]):
                    live.begin()
                    output = step(batch[:, :rows], number)
            if live.peak > peak:
                peak, moment = live.peak, live.peak_moment
        memory = tuple(_stage_memory(stage) for stage in stages)
    sent = 0 if indices[-1] == config.num_stages else output
    return ProcessAccount(memory, batch.nbytes, sent, peak, moment)


def _few(config: Config, indices: Sequence[int]) -> int:
    """Rows of the first step, which makes gradients and the optimizer's state; the second is like all that follow.

    A head that goes by slices takes time for each of them, so that it gets two.
    """
    slices = [getattr(config.stage(index).head, "chunk", None) for index in indices]
    rows = config.data.batch_size // config.replicas_of(indices[0])
    return min(rows, *(2 * size for size in slices if size)) if any(slices) else rows


def _steps(config: Config, stages: Sequence[FakeStage]) -> list[int]:
    """A step with the largest views; in mode sequential one for each stage that learns."""
    phases = Phases.of(config, STEPS_PER_EPOCH)
    first = {phases.first(stage.index) for stage in stages} if phases.order else {0}
    return [step + _largest_epoch(config, phases) for step in sorted(first) if step < phases.total_steps]


def _step_function(config: Config, stages: Sequence[FakeStage]) -> Callable[[Tensor, int], int]:
    """How the process goes through a step: from the batch and its number to the bytes of what is sent on."""
    labels = torch.zeros(config.data.batch_size, dtype=torch.int64) if config.uses_labels else None
    serial = step_function(config, stages, CPU) if config.in_one_process else None
    levels = [NOISE] * config.num_stages

    def of_batch(batch: Tensor) -> Tensor | None:
        return None if labels is None else labels[: batch.shape[1] * config.replicas_of(stages[0].index)]

    def measure(stage: FakeStage, number: int, of_rows: Tensor | None) -> None:
        if stage.online is not None:
            stage.online.measure(number, of_rows)

    def in_one_process(batch: Tensor, number: int) -> int:
        assert serial is not None
        for stage, _ in zip(stages, serial(stages, batch, number, levels, of_batch(batch)), strict=False):
            measure(stage, number, of_batch(batch))
        return 0

    def pipelined(batch: Tensor, number: int) -> int:
        learner, activations = stages[0].phases.learner(number), batch
        reached = [stage for stage in stages if learner is None or stage.index <= learner]
        for stage in reached:
            activations = activations if stage is stages[0] else round_trip(config.link.codec, activations)
            forward = stage if stage.learns(learner) else stage.relay
            activations = forward(activations, number, NOISE)
        for stage in reached:
            if stage.learns(learner):
                stage.update(number, of_batch(activations))
            measure(stage, number, of_batch(activations))
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
        summed=_total(stage.summed()),
        online=online_bytes(stage),
    )


def _total(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
