"""What the parts of a run cost on this machine: units, ends, links, sums of gradients and the feed, timed in a minute.

To be called in a process that was started with `workers.run.environment.process_environment`, as those of a run are:
without the settings of its allocator, a unit takes up to twice as long on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import torch

from launch.partition.cost_cache import CostCache
from launch.partition.costs import Costs, LinkCost
from launch.partition.device_table import CPU_HOST_CARD, GPU_HOST_CARD, LATENCY, REACHED_BANDWIDTH
from launch.partition.finest import cut_everywhere
from launch.partition.measuring_feed import measured_feed
from launch.partition.measuring_pair import PairCosts, measured_pair
from launch.partition.measuring_units import Tell, UnitMeasurement
from launch.plan.devices import CPU
from launch.plan.gpus import sizes_of
from launch.prepare.placement import count_gpus
from pipeline.config import Config
from pipeline.errors import UserError
from workers.run.compute import set_up_compute, settings_kept
from workers.stage.device_clock import DeviceClock

PAIR_SHARE, FEED_SHARE = 0.1, 0.1
"""Of the time: for links and sums, beside the start of their processes, and for the feed."""


def measured_costs(
    config: Config,
    *,
    stages: Collection[int] | None = None,
    seconds: float = 60.0,
    fresh: bool = False,
    cache: Path | None = None,
    across: LinkCost | None = None,
    tell: Tell = lambda text, done, total: None,
) -> Costs:
    """Time the parts of a run on this machine, or read what was measured before.

    Units, heads and losses compute as a stage of the run does: with its precision, its threads and its views, on random
    images, on the GPU, or on one CPU core for each of `threads`. By the clock of the processor where `threads` is 1, so
    that other processes take no part of it. Links are between two processes of this machine. Between hosts, both ends
    are measured with `link.kind: p2p` over the loopback device, and the network card is that of the table of estimates.

    Args:
        config: of the run; its own cuts, replicas and processes do not matter.
        stages: numbers of the stages that a plan may have, counted from 1; as many as there are units if not given.
        seconds: that it may take, once; on a machine that has other work, it becomes less exact.
        fresh: measure, whatever was measured before.
        cache: folder of what was measured; `~/.cache/onward/costs` if not given.
        across: a link between two hosts, if it is known better.
        tell: is told of the progress.

    Raises:
        UserError: the images are not there, the GPU is not there, or two processes cannot connect.
        ConfigError: the network cannot be built, or cut as the run says.
        TrainingError: a step fails.
    """
    device, finest = _device(config), cut_everywhere(config)
    kept = CostCache(finest, device, cache)
    costs = None if fresh else kept.read()
    if costs is None:
        with settings_kept():
            set_up_compute(config)
            costs = _measured(config, finest, device, time.monotonic() + seconds, tell)
        kept.write(costs)
    wanted = sorted(stages or {stage for stage, _ in costs.ends})
    common = costs.units_of(wanted[0])
    return replace(
        costs,
        units=common,
        of_stages={stage: costs.units_of(stage) for stage in wanted if costs.units_of(stage) != common},
        ends={place: end for place, end in costs.ends.items() if place[0] in wanted},
        across=across or costs.across,
    )


def _measured(config: Config, finest: Config, device: torch.device, deadline: float, tell: Tell) -> Costs:
    seconds = deadline - time.monotonic()
    tell("feed", 0, 1)
    feed = measured_feed(config, FEED_SHARE * seconds)
    tell("links", 0, 1)
    pair, kind = _pair(finest, device, PAIR_SHARE * seconds), config.link.resolved_kind
    measurement = UnitMeasurement(
        finest, range(1, finest.num_stages + 1), device, deadline=deadline, clock=clock_of(config, device), tell=tell
    )
    of_stages, ends = measurement.run()
    common = of_stages[finest.num_stages]
    card = REACHED_BANDWIDTH * (GPU_HOST_CARD if device.type == "cuda" else CPU_HOST_CARD)
    sizes = sizes_of([str(device)])
    return Costs(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else CPU,
        estimated=False,
        batch=config.data.batch_size,
        units=common,
        ends=ends,
        within=pair.links[kind],
        across=replace(pair.links["p2p" if kind == "queue" else kind], bandwidth=card, latency=LATENCY),
        summing=pair.summing,
        feed=feed,
        memory=sizes[str(device)] if sizes else torch.cuda.mem_get_info(device)[1],
        of_stages={stage: own for stage, own in of_stages.items() if own != common},
    )


def _pair(finest: Config, device: torch.device, seconds: float) -> PairCosts:
    kind, devices = finest.link.resolved_kind, [str(device)] * 2
    if device.type == "cuda" and count_gpus() > 1:
        devices[1] = f"cuda:{(device.index or 0) + 1 if (device.index or 0) + 1 < count_gpus() else 0}"
    return measured_pair(finest, [kind, "p2p"] if kind == "queue" else [kind], devices, seconds)


def clock_of(config: Config, device: torch.device) -> DeviceClock:
    """The clock of a device; where one thread computes, what the processor has computed for it."""
    if device.type == "cuda" or config.threads > 1:
        return DeviceClock.of(device)
    return DeviceClock(now=time.thread_time)


def _device(config: Config) -> torch.device:
    """That a stage computes on which has no device of its own."""
    if config.device == CPU or (config.device == "auto" and not count_gpus()):
        return torch.device(CPU)
    if not count_gpus():
        raise UserError(
            f"device is '{config.device}', and this machine has no GPU to measure on. Measure on one that has, or "
            "let --gpu name it without --measure"
        )
    return torch.device(config.device if ":" in config.device else "cuda:0")
