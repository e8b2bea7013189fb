"""The memory of the host, if all processes of a run are on it: what each part takes, and what there is.

Pages that processes share are counted once: those of the programs, which are forked from one server, and those of
links, feeds and data. What a process takes beside its tensors was measured (`tests/launch/plan/test_host.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from launch.plan.account import (
    DataFacts,
    EvaluationAccount,
    GroupAccount,
    HostAccount,
    InputAccount,
    LinkAccount,
    ProcessAccount,
    SnapshotAccount,
    Term,
)
from launch.plan.links import CPU
from pipeline.config import Config
from pipeline.data.sets.memory import memory_limits
from workers.feed.batch_plan import slot_bytes
from workers.feed.first_stage import stages_read_images
from workers.feed.ring import Ring

MIB = 2**20
PROCESS_BYTES = (20 * MIB, 160 * MIB)
"""Memory that a process has for itself beside its tensors, on a CPU: interpreter, messages, what libraries allocate."""
FORKED = 0.5
"""Share of the memory of a program that has loaded the libraries that its forked processes have too, at least."""
FACTOR = (1.2, 2.0)
"""Of the tensors' peak, what their memory takes on the CPU: the allocator keeps what was freed, and splits it."""
WORKER = (280 * MIB, 600 * MIB)
"""A process of the data loader, which is a program of its own."""
ON_GPU = (500 * MIB, 4096 * MIB)
"""A process that computes on a GPU; not measured."""
COMMAND = 80 * MIB
"""`onward train` itself, which waits."""


def resident_range(memory: ProcessAccount, base: int, buffers: int) -> tuple[int, int]:
    """What the system calls the resident memory of a training process on the CPU, at its most: from least to most.

    Args:
        memory: of its tensors.
        base: of a process that has loaded the libraries and done nothing.
        buffers: of its links and its feed.
    """
    least = int(FORKED * base) + int(FACTOR[0] * memory.peak)
    return least, base + buffers + PROCESS_BYTES[1] + int(FACTOR[1] * (memory.peak + memory.input))


def host_account(
    config: Config,
    data: DataFacts,
    base: int,
    *,
    groups: Sequence[GroupAccount],
    links: Sequence[LinkAccount],
    inputs: Sequence[InputAccount],
    snapshots: Sequence[SnapshotAccount],
    evaluation: EvaluationAccount,
) -> HostAccount:
    """The sum of all parts.

    Args:
        config: of the run.
        data: as far as they are known.
        base: memory of a process that has loaded the libraries and done nothing.
        groups, links, inputs, snapshots, evaluation: of the run.
    """
    shared = sum(link.shared for link in links)
    fed = feed_bytes(config)
    held = [link for link in links if not link.on_gpu]
    entering = sum(entry.pinned if entry.device != CPU else entry.bytes for entry in inputs)
    end = evaluation.end_of_training or 0
    openers = 2 + (config.replicas_of(1) if stages_read_images(config) else 0)  # the command and the coordinator
    terms = [
        Term(name="programs", low=base + COMMAND, high=base + COMMAND + PROCESS_BYTES[1]),
        _stages(groups),
        Term(name="links", low=shared, high=shared + sum(link.sending + link.receiving for link in held)),
        Term(name="inputs", low=entering, high=entering),
        Term(name="feeds", low=fed, high=fed),
        _workers(config),
        Term(name="data", low=data.shared or 0, high=(data.shared or 0) + openers * (data.opened or 0)),
        Term(
            name="snapshots",
            low=sum(part.copy for part in snapshots),
            high=sum(part.copies for part in snapshots),
        ),
        Term(name="replays", low=0, high=sum(link.replay for link in links)),
        Term(name="probes at the end", low=end, high=end),
    ]
    terms = [term for term in terms if term.high]
    return HostAccount(
        terms=tuple(terms),
        low=sum(term.low for term in terms),
        high=sum(term.high for term in terms),
        shared=shared + fed + (data.shared or 0),
        limits=memory_limits(),
        unknown=tuple(_unknown(config, data)),
    )


def _stages(groups: Sequence[GroupAccount]) -> Term:
    low = high = 0
    for group in groups:
        on_cpu = group.devices.count(CPU)
        low += (
            on_cpu * (PROCESS_BYTES[0] + int(FACTOR[0] * group.memory.peak)) + (len(group.devices) - on_cpu) * ON_GPU[0]
        )
        high += (
            on_cpu * (PROCESS_BYTES[1] + int(FACTOR[1] * group.memory.peak)) + (len(group.devices) - on_cpu) * ON_GPU[1]
        )
    return Term(name="stages", low=low, high=high)


def feed_bytes(config: Config) -> int:
    """The rings of the coordinator's feed, or of those of all processes of stage 1."""
    feeds = config.replicas_of(1) if stages_read_images(config) else 1
    return feeds * Ring.size(slot_bytes(config, feeds), max(config.data.workers, 1))


def _workers(config: Config) -> Term:
    count = config.data.workers * (config.replicas_of(1) if stages_read_images(config) else 1)
    return Term(name="data loader workers", low=count * WORKER[0], high=count * WORKER[1])


def _unknown(config: Config, data: DataFacts) -> list[str]:
    found = []
    if data.opened is None:
        found.append("the data set, which is not at hand")
    if data.images is None and config.evaluation.linear_probe:
        found.append("the probes when training ends, whose features are as many as there are images")
    return found
