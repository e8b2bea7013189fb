"""Computes the account of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from launch.plan.account import DataFacts, GroupAccount, LinkAccount, RunAccount, SnapshotAccount
from launch.plan.deciding import decided_run
from launch.plan.devices import DeviceAccount, Memory
from launch.plan.evaluation import evaluation_account
from launch.plan.host import feed_bytes, host_account, resident_range
from launch.plan.links import ALL_STAGES, CPU, input_accounts, link_accounts, link_bytes
from launch.plan.memories import ProcessMemories
from launch.prepare.placement import Placement, device_of
from pipeline.config import Config
from workers.feed.first_stage import stages_read_images
from workers.observing.memory import ProcessMemory
from workers.topology.processes import replicas_of, stage_groups, stage_name, training_processes

BASE = 500 * 2**20
"""Of a process that has loaded the libraries, where the system does not say."""
COPIES = 3
"""Parts of snapshots that a process has in memory at most: one is written, one waits, one cannot be handed on."""


def checked_run(
    config: Config, placements: Sequence[Placement], data: DataFacts, sizes: Mapping[str, int] | None
) -> tuple[Config, tuple[DeviceAccount, ...], RunAccount]:
    """The run with `memory.recompute: auto` decided, an account for each device, and what the run needs.

    Args:
        config: of the run.
        placements: one per stage, in order.
        data: as far as they are known.
        sizes: bytes of each device; None to ask CUDA.

    Raises:
        RuntimeError, NotImplementedError, TypeError: as `run_account`; or PyTorch finds no GPU.
    """
    memories = ProcessMemories()
    decided, devices = decided_run(config, placements, sizes, memories)
    return decided, devices, run_account(decided, placements, data, memories)


def run_account(
    config: Config, placements: Sequence[Placement], data: DataFacts, memory: Memory | None = None
) -> RunAccount:
    """What a run needs.

    Args:
        config: of the run.
        placements: one per stage, in order.
        data: as far as they are known.
        memory: says what a process takes.

    Raises:
        RuntimeError, NotImplementedError, TypeError: an operation of the user's own network, or loss, has no fake form.
    """
    base = ProcessMemory(torch.device(CPU)).measure()[0] or BASE
    links = link_accounts(config, placements)
    groups = _groups(config, placements, links, base, memory or ProcessMemories())
    inputs = input_accounts(config, placements, links)
    snapshots = tuple(map(_snapshot, groups)) if config.snapshots.every is not None else ()
    evaluation = evaluation_account(config, data, placements[0].device)
    host = host_account(
        config,
        data,
        base,
        groups=groups,
        links=links,
        inputs=inputs,
        snapshots=snapshots,
        evaluation=evaluation,
    )
    return RunAccount(groups=groups, links=links, inputs=inputs, snapshots=snapshots, host=host, evaluation=evaluation)


def _groups(
    config: Config, placements: Sequence[Placement], links: Sequence[LinkAccount], base: int, memory: Memory
) -> tuple[GroupAccount, ...]:
    if config.in_one_process:
        every = tuple(range(1, config.num_stages + 1))
        return (_group(config, ALL_STAGES, every, (placements[0].device,), base, feed_bytes(config), memory),)
    processes, groups = training_processes(config), []
    for group, stages in enumerate(stage_groups(config)):
        members = replicas_of(processes, group)
        devices = tuple(device_of(process, placements) for process in members)
        name = members[0].name if len(members) == 1 else stage_name(stages[0])
        buffers = max(link_bytes(process.name, links) for process in members)
        if group == 0 and stages_read_images(config):
            buffers += feed_bytes(config) // len(members)
        groups.append(_group(config, name, stages, devices, base, buffers, memory))
    return tuple(groups)


def _group(
    config: Config,
    name: str,
    stages: tuple[int, ...],
    devices: tuple[str, ...],
    base: int,
    buffers: int,
    memory: Memory,
) -> GroupAccount:
    on_cpu = set(devices) == {CPU}
    taken = memory(config, stages, not on_cpu)
    resident = resident_range(taken, base, buffers) if on_cpu else None
    return GroupAccount(name=name, stages=stages, devices=devices, memory=taken, resident=resident)


def _snapshot(group: GroupAccount) -> SnapshotAccount:
    sizes = [stage.snapshot for stage in group.memory.stages]
    sizes_in_turn = [sum((sizes * COPIES)[start : start + COPIES]) for start in range(len(sizes))]
    pinned = 1 + (group.devices[0] != CPU)
    return SnapshotAccount(process=group.name, disk=sum(sizes), copy=max(sizes), copies=pinned * max(sizes_in_turn))
