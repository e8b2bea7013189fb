"""What the links of a run carry and hold, by the functions that open them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from launch.plan.account import InputAccount, LinkAccount
from launch.prepare.placement import Placement, device_of
from pipeline.config import Config
from pipeline.data.augment.device_photometrics import photometrics_on_device
from workers.feed.device_slots import SLOTS
from workers.feed.first_stage import stages_read_images
from workers.links.factory import link_buffers
from workers.links.replay import most_in_memory
from workers.topology.processes import TrainingProcess, training_processes
from workers.topology.rendezvous import link_spec
from workers.wiring import LinkPlan, PlannedLink

CPU = "cpu"
CUDA_IPC, PINNED = "CUDA IPC", "pinned"
"""Ways of a queue."""
ALL_STAGES = "all stages"
"""Name of the process that trains all of them."""
SNAPSHOTS_BEHIND = 3
"""Snapshots that a stage may be ahead of the last complete one: one is written, one waits, and one blocks the stage."""


def link_accounts(config: Config, placements: Sequence[Placement]) -> tuple[LinkAccount, ...]:
    """Every link of a run, the coordinator's first; none where one process trains all stages.

    Args:
        config: of the run.
        placements: one per stage, in order.
    """
    if config.in_one_process:
        return ()
    plan = LinkPlan(config)
    devices = {process.name: device_of(process, placements) for process in training_processes(config)}
    return tuple(_account(config, group, link, devices) for group in plan.stage_groups for link in plan.into(group))


def input_accounts(
    config: Config, placements: Sequence[Placement], links: Sequence[LinkAccount]
) -> tuple[InputAccount, ...]:
    """Where the batch lies in every training process, beside `links`; arguments as `link_accounts`."""
    if config.in_one_process:
        device, size = placements[0].device, link_spec(config, 1).nbytes
        return (_first_input(config, ALL_STAGES, device, size),)
    return tuple(
        _input(config, process, device_of(process, placements), links) for process in training_processes(config)
    )


def _input(config: Config, process: TrainingProcess, device: str, links: Sequence[LinkAccount]) -> InputAccount:
    size = link_spec(config, process.stages[0]).nbytes // process.replicas
    if process.stage_group == 0:
        return _first_input(config, process.name, device, size)
    ends = [link for link in links if link.receiver == process.name]
    moved = device != CPU and not ends[0].on_gpu
    copied = len(ends) > 1 or ends[0].codec != "none" or moved  # one copy does all of it
    return InputAccount(process=process.name, device=device, bytes=copied * size)


def _first_input(config: Config, process: str, device: str, size: int) -> InputAccount:
    """Of a process that gets images in host memory: on a GPU, one batch ahead."""
    slots = SLOTS * size if device != CPU else 0
    finished = photometrics_on_device(config.data) * size
    return InputAccount(process=process, device=device, bytes=slots + finished, pinned=slots)


def foreign_contexts(links: Sequence[LinkAccount], devices: Mapping[str, str]) -> dict[str, int]:
    """How many processes of other GPUs have a context on each, by which they write to the ring of a link.

    Args:
        links: of the run.
        devices: of its training processes, by name.
    """
    pairs = {(link.sender, devices.get(link.receiver, CPU)) for link in links if link.way == CUDA_IPC}
    return Counter(device for sender, device in pairs if devices.get(sender) != device)


def link_bytes(process: str, links: Sequence[LinkAccount]) -> int:
    """What the links of one process hold of its memory: what it shares with the other end, and what it has alone."""
    into, out = ([link for link in links if process == getattr(link, end)] for end in ("receiver", "sender"))
    shared = sum(link.shared for link in (*into, *out))
    return shared + sum(link.receiving for link in into) + sum(link.sending + link.replay for link in out)


def _account(config: Config, group: int, link: PlannedLink, devices: dict[str, str]) -> LinkAccount:
    kind, depth = config.link.resolved_kind, config.link.depth
    ends = devices.get(link.sender, CPU), devices[link.receiver]
    numbers = group == 0 and stages_read_images(config)  # received on the CPU in any case
    way = _way_of_queue(config, ends) if kind == "queue" and not numbers else ""
    buffers = link_buffers(kind, link.spec, depth, link.codec, ring=way == CUDA_IPC)
    nccl = kind == "p2p" and not numbers and CPU not in ends and ends[0] != ends[1]
    return LinkAccount(
        name=link.name,
        group=group,
        sender=link.sender,
        receiver=link.receiver,
        kind=kind,
        codec=link.codec,
        bytes_per_step=buffers.message,
        shared=buffers.shared,
        sending=buffers.sending,
        receiving=buffers.receiving,
        on_gpu=nccl or way == CUDA_IPC,
        replay=_replayed(config, buffers.message, ends[0]) if config.restart == "stage" else 0,
        way=way,
    )


def _way_of_queue(config: Config, ends: tuple[str, str]) -> str:
    """See `LinkAccount.way`; by what is known without the processes, which try it when they open the link."""
    if CPU not in ends and config.link.rings:
        return CUDA_IPC
    return PINNED if set(ends) != {CPU} else ""


def _replayed(config: Config, message: int, device: str) -> int:
    """What a sender on `device` keeps in memory of the batches since the last complete snapshot, of `message` bytes."""
    every, under_way = config.snapshots.every, config.num_stages * (config.link.depth + 1)
    batches = None if every is None else SNAPSHOTS_BEHIND * every + under_way
    return most_in_memory(batches, message, pinned=device != CPU)
