"""What PyTorch's allocator hands out while real steps of one process run, by the profiler's events of memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from pipeline.config import Config
from pipeline.data.augment.resolution import view_sizes
from pipeline.data.augment.view_kinds import sizes_differ
from pipeline.data.packing import pack
from pipeline.measures.online import online_measures
from pipeline.precision import DTYPES
from pipeline.replicas import SOLO, ReplicaGroup
from pipeline.serial import build_stages, step_function
from pipeline.shapes import view_shapes
from pipeline.stage.stage import Stage
from workers.links.base import LinkAddress, Receiver, Sender
from workers.links.messages import Header, Message, TensorSpec
from workers.run.faults import Faults
from workers.run.files import RunDir
from workers.stage.worker import Activity, Snapshots, StageWorker

CPU = torch.device("cpu")
MARK = "beginning of step "
KERNELS = (
    "aten::convolution",
    "aten::convolution_backward",
    "aten::native_batch_norm_backward",
    "aten::native_layer_norm_backward",
)
"""Those that allocate and free within themselves, each kind of processor in another way."""
CLASSES = 10
"""Of the data set that configurations name where they name none."""
STEPS = 3
"""The first makes gradients and the optimizer's state."""


def measured_peak(config: Config, indices: Sequence[int], workspaces: bool = False, group: ReplicaGroup = SOLO) -> int:
    """As `measured_peaks`, with or without what kernels allocate and free within themselves."""
    return measured_peaks(config, indices, group)[workspaces]


def measured_peaks(
    config: Config, indices: Sequence[int], group: ReplicaGroup = SOLO, last_rows: int | None = None
) -> tuple[int, int]:
    """Most bytes at once in steps 2 and 3 of the process that trains the stages `indices`, less the batch itself.

    Args:
        config, indices, group: of the process.
        last_rows: of the batch of the last step, where it is smaller.

    Returns:
        Without what kernels allocate and free within themselves, and with it.
    """
    step = max(
        range(config.train.epochs if config.data.progressive else 1),
        key=lambda epoch: sum(size**2 for size in view_sizes(config.data, epoch, config.num_views)),
    )
    batch = random_batch(config, indices[0], step)
    labels = torch.arange(config.data.batch_size) % 2 if config.uses_labels else None
    batches = Batches(batch, labels, step, last_rows)
    gc.collect()  # what an earlier measurement has left would be freed during this one, and be taken from its sum
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        if config.in_one_process:
            stages = build_stages(config, 1)
            measure_online(config, stages)
            one_step, levels = step_function(config, stages, CPU), [1.0] * config.num_stages
            for message in batches:
                rows = message.tensor.shape[1]
                of_rows = None if labels is None else labels[:rows]
                for stage, _ in zip(stages, one_step(stages, message.tensor, step, levels, of_rows), strict=False):
                    if stage.online is not None:
                        stage.online.measure(step, of_rows)
        else:
            stages = [Stage(config, index, 1, team=group) for index in indices]
            measure_online(config, stages)
            work(stages, batches, indices[-1] < config.num_stages, config.link.codec)
    return largest_sum(profiled, False), largest_sum(profiled, True)


def measure_online(config: Config, stages: Sequence[Stage]) -> None:
    """With full banks, as after some steps."""
    for stage in stages:
        stage.online = online_measures(config, stage.index, CLASSES, 1, stage.compute, stage.team)
        for bank in (stage.online._bank, stage.online._recent) if stage.online is not None else ():
            if bank is not None:
                bank.add(torch.randn_like(bank._features), torch.arange(bank.capacity) % CLASSES)


def work(stages: Sequence[Stage], batches: Batches, sends: bool, codec: str) -> None:
    """The loop of a stage's process."""
    source = Source(batches)
    faults, activity = Faults((), RunDir(Path("nowhere")), (1,), 1), Activity(stages[0].index)
    sender = Sink(source.address, source.spec) if sends else None
    StageWorker(
        stages=stages,
        receiver=source,
        sender=sender,
        control=None,
        timeout=5.0,
        snapshots=cast(Snapshots, None),
        faults=faults,
        activity=activity,
        codec=codec,
    ).run()


class Batches:
    """The same batch for every step, each announced to the profiler; of the last one perhaps the first rows alone."""

    def __init__(self, batch: Tensor, labels: Tensor | None, step: int = 0, last_rows: int | None = None) -> None:
        self.batch, self.labels, self.step, self._last_rows = batch, labels, step, last_rows
        self._last = batch if last_rows is None else batch[:, :last_rows].clone()
        self.count = 0

    def __iter__(self) -> Iterator[Message]:
        while self.count < STEPS:
            yield self.next()

    def next(self) -> Message:
        with record_function(f"{MARK}{self.count}"):
            self.count += 1
        last = self.count == STEPS
        batch = self._last if last else self.batch
        rows = self._last_rows if last else None  # a replica has a share of the batch, and all labels
        labels = b"" if self.labels is None else self.labels[:rows].numpy().astype("<i4").tobytes()
        return Message(Header(self.step, self.step, (1.0,) * 9, last=last, labels=labels), batch)


class Source(Receiver):
    """Where batches come from."""

    def __init__(self, batches: Batches) -> None:
        address = LinkAddress("link1", "stage 1", "stage 2", path="", key=b"", depth=2)
        super().__init__(address, TensorSpec((1,), batches.batch.dtype))
        self._batches = batches

    def recv(self, timeout: float) -> Message:
        return self._batches.next()

    def waiting(self) -> int:
        return 0

    def close(self) -> None:
        pass


class Sink(Sender):
    """Where activations go: they are copied elsewhere at once, as into shared memory."""

    def await_room(self, timeout: float) -> None:
        pass

    def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
        pass

    def close(self) -> None:
        pass


def random_batch(config: Config, index: int, epoch: int) -> Tensor:
    """What enters stage `index`, on one replica."""
    rows, views = config.data.batch_size // config.replicas_of(index), config.num_views
    shapes = view_shapes(config, index, view_sizes(config.data, epoch, views))
    source = torch.Generator().manual_seed(0)
    if index == 1:
        made = [torch.randint(0, 256, (rows, *shape), generator=source, dtype=torch.uint8) for shape in shapes]
    else:
        dtype = DTYPES[config.stage(index - 1).precision.dtype]
        made = [torch.randn((rows, *shape), generator=source).to(dtype) for shape in shapes]
    return pack(made, sizes_differ(config.data))


def largest_sum(profiled: profile, workspaces: bool) -> int:
    """Of what is allocated and not freed, from the beginning of the second step on."""
    events = sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    begin = next(event.start_ns() for event in events if event.name() == f"{MARK}1")
    now = largest = kernel_ends = 0
    for event in events:
        if event.start_ns() >= max(begin, 0 if workspaces else kernel_ends):
            largest = max(largest, now)
        if event.name() in KERNELS:
            kernel_ends = max(kernel_ends, event.end_ns())
        elif event.name() == "[memory]":
            now += event.nbytes()
    return largest
