"""What `memory.recompute: auto` becomes on the devices of a run, by the account; in the process that computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from launch.plan.devices import CPU, DeviceAccount, Memory, device_processes, peaks
from launch.plan.gpus import sizes_of
from launch.plan.remedies import Devices
from launch.prepare.placement import Placement
from launch.prepare.recompute import resolve_recompute, undecided, with_recompute
from pipeline.config import Config


def decided_run(
    config: Config, placements: Sequence[Placement], sizes: Mapping[str, int] | None, memory: Memory
) -> tuple[Config, tuple[DeviceAccount, ...]]:
    """The run with what it leaves open decided, and an account for each device.

    Args:
        config: of the run.
        placements: one per stage, in order.
        sizes: bytes of each device; None to ask CUDA.
        memory: what a process takes.

    Raises:
        RuntimeError: PyTorch finds no GPU, or an operation of the user's own network, or loss, has no fake form.
    """
    known = _sizes_by_torch(config, placements) if sizes is None else sizes
    devices = Devices(tuple(placements), known, memory)
    left = undecided(config)
    config = with_rings(config, devices)
    decided = resolve_recompute(config, left, devices.sizes, lambda tried: peaks(devices.accounts(tried)))
    return decided, devices.accounts(decided)


def with_rings(config: Config, devices: Devices) -> Config:
    """The run with `link.device_to_device: auto` decided: a ring takes a GPU several batches, pinned memory one.

    Pinned memory costs a step less than computing again what a ring has no room for.
    """
    if config.link.device_to_device != "auto" or config.link.resolved_kind != "queue" or config.in_one_process:
        return config
    keeping = with_recompute(config, dict.fromkeys(undecided(config), "none"))
    link = config.link.model_copy(update={"device_to_device": devices.fit(keeping)})
    return config.model_copy(update={"link": link})


def _sizes_by_torch(config: Config, placements: Sequence[Placement]) -> dict[str, int]:
    """Bytes of the devices of this machine, by CUDA itself."""
    import torch

    devices = {process.device for process in device_processes(config, placements)}
    gpus = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
    if not gpus and devices - {CPU}:
        raise RuntimeError("PyTorch finds no GPU here")
    named = {device: int(device.removeprefix("cuda:")) for device in devices - {CPU}}
    others = {device: gpus[number] if number < len(gpus) else min(gpus) for device, number in named.items()}
    return (sizes_of(devices & {CPU}) or {}) | others
