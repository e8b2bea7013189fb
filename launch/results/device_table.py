"""`onward check --gpu`: whether every device holds what is on it, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from launch.plan.devices import CPU
from launch.plan.fitting import AccountError, needs_in_words, planned
from launch.plan.gpus import Gpu, available_memory
from launch.prepare.placement import place
from launch.prepare.recompute import undecided
from pipeline.config import Config
from pipeline.errors import UserError
from workers.topology.processes import training_processes


def device_lines(config: Config, gpu: Gpu) -> Iterator[str]:
    """A line for each device: what the processes on it need, what it has, and whether that fits.

    Args:
        config: of the run; needs no data, and no GPU.
        gpu: that the processes have, each one of its own unless their number is given.

    Raises:
        ConfigError: the configuration asks for a device that is not there.
        UserError: an operation of a network or a loss of the user's own cannot be computed without memory.
    """
    named = [config.stage(index).device.removeprefix("cuda:") for index in range(1, config.num_stages + 1)]
    processes = 1 if config.in_one_process else len(training_processes(config))
    count = gpu.count or max([processes, *(int(number) + 1 for number in named if number.isdecimal())])
    placements = place(config, count)
    devices = {device for placement in placements for device in placement.devices}
    sizes = {device: available_memory() if device == CPU else gpu.bytes for device in devices}
    try:
        decided, accounts = planned(config, placements, sizes)
    except AccountError as error:
        raise UserError(f"--gpu: {error}. Check without it") from None
    for index in undecided(config):
        yield f"stages.{index}.memory.recompute={decided.stage(index).memory.recompute} (auto)"
    for account in accounts:
        yield f"{'fits' if account.fits else 'does not fit'}: {needs_in_words(account)}"
