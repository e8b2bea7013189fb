"""Computes the account of a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from launch.plan.account import DataFacts, GroupAccount, LinkAccount, RunAccount, SnapshotAccount
from launch.plan.evaluation import evaluation_account
from launch.plan.host import feed_bytes, host_account, resident_range
from launch.plan.links import ALL_STAGES, CPU, input_accounts, link_accounts, link_bytes
from launch.plan.process_memory import process_memory
from launch.prepare.placement import Placement, device_of
from pipeline.config import Config
from workers.feed.first_stage import stages_read_images
from workers.observing.memory import ProcessMemory
from workers.topology.processes import replicas_of, stage_groups, stage_name, training_processes

BASE = 500 * 2**20
"""Of a process that has loaded the libraries, where the system does not say."""
COPIES = 3
"""Parts of snapshots that a process has in memory at most: one is written, one waits, one cannot be handed on."""


def run_account(config: Config, placements: Sequence[Placement], data: DataFacts) -> RunAccount:
    """What a run needs.

    Args:
        config: of the run.
        placements: one per stage, in order.
        data: as far as they are known.

    Raises:
        RuntimeError, NotImplementedError, TypeError: an operation of the user's own network, or loss, has no fake form.
    """
    base = ProcessMemory(torch.device(CPU)).measure()[0] or BASE
    links = link_accounts(config, placements)
    groups = _groups(config, placements, links, base)
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
    config: Config, placements: Sequence[Placement], links: Sequence[LinkAccount], base: int
) -> tuple[GroupAccount, ...]:
    if config.in_one_process:
        every = tuple(range(1, config.num_stages + 1))
        return (_group(config, ALL_STAGES, every, (placements[0].device,), base, feed_bytes(config)),)
    processes, groups = training_processes(config), []
    for group, stages in enumerate(stage_groups(config)):
        members = replicas_of(processes, group)
        devices = tuple(device_of(process, placements) for process in members)
        name = members[0].name if len(members) == 1 else stage_name(stages[0])
        buffers = max(link_bytes(process.name, links) for process in members)
        if group == 0 and stages_read_images(config):
            buffers += feed_bytes(config) // len(members)
        groups.append(_group(config, name, stages, devices, base, buffers))
    return tuple(groups)


def _group(
    config: Config, name: str, stages: tuple[int, ...], devices: tuple[str, ...], base: int, buffers: int
) -> GroupAccount:
    memory = process_memory(config, stages)
    resident = resident_range(memory, base, buffers) if set(devices) == {CPU} else None
    return GroupAccount(name=name, stages=stages, devices=devices, memory=memory, resident=resident)


def _snapshot(group: GroupAccount) -> SnapshotAccount:
    sizes = [stage.snapshot for stage in group.memory.stages]
    sizes_in_turn = [sum((sizes * COPIES)[start : start + COPIES]) for start in range(len(sizes))]
    return SnapshotAccount(process=group.name, disk=sum(sizes), copy=max(sizes), copies=max(sizes_in_turn))
