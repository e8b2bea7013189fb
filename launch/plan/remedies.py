"""What would make a run fit its devices: each change is tried with the account, and the least of its kind is named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import lcm
from time import process_time
from typing import Any

from launch.plan.devices import CPU, DeviceAccount, Memory, device_accounts, device_processes, peaks
from launch.prepare.placement import Placement, place
from launch.prepare.recompute import resolve_recompute
from pipeline.config import Config
from pipeline.config.heads import ExpansionConfig
from pipeline.config.run import StageOverrides
from pipeline.errors import ConfigError
from pipeline.validation.combinations import check_combinations
from workers.topology.processes import training_processes

GIB = 2**30
MOST_REPLICAS = 64
LEAST_CHUNK = 16
"""Images of a slice of a head; with fewer, kernels are too small to be fast."""
TRIES = 5
"""Accounts that the search for a batch may make; each takes about a second for each stage."""
PATIENCE = 60.0
"""Seconds of the processor after which no further kind of change is tried once one was found."""
NEAR = 16
"""The batch that is found may be smaller than the largest that fits by one in so many images of the batch."""


@dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Args:
        placements: one per stage, in order.
        sizes: bytes of each device.
        memory: what a process takes.
    """

    placements: tuple[Placement, ...]
    sizes: Mapping[str, int]
    memory: Memory

    def accounts(self, config: Config) -> tuple[DeviceAccount, ...]:
        """Of a run on them."""
        return device_accounts(config, self.placements, self.sizes, self.memory)

    def fit(self, config: Config) -> bool:
        """Whether they hold a run."""
        return all(account.fits for account in self.accounts(config))


def _impatient() -> bool:
    """Whether the process that looks for remedies, a child of its own, has used enough of the processor."""
    return process_time() > PATIENCE


def remedies(config: Config, devices: Devices, resumed: bool, impatient: Callable[[], bool] = _impatient) -> list[str]:
    """Changes of which each makes the run fit, as overrides and what it needs then, the least costly first.

    Args:
        config: of the run; `memory.recompute` is decided.
        devices: it is to run on.
        resumed: only what leaves the numbers alone may change.
        impatient: whether a further kind of change is not tried once one was found.

    Returns:
        Nothing where it fits, or where no change does that is known here.
    """
    full = [account for account in devices.accounts(config) if not account.fits]
    if not full:
        return []
    here = replace(devices, sizes={account.device: account.has for account in full})
    stages = [k for m in device_processes(config, devices.placements) if m.device in here.sizes for k in m.stages]
    thrifty = resolve_recompute(config, stages, here.sizes, lambda tried: peaks(here.accounts(tried)))
    found = _tried(here, _recomputed(config, thrifty, stages), thrifty)
    if not found and not resumed:
        sliced = _sliced(thrifty, here, stages)
        thrifty = sliced or thrifty
        found += _tried(here, _recomputed(config, thrifty, stages) + _chunks(config, thrifty), thrifty)
    smaller = config if found else thrifty
    if not found or not impatient():
        found += _replicas(config, here)
    if not resumed and (not found or not impatient()):
        changed = _recomputed(config, smaller, stages) + _chunks(config, smaller)
        if (batch := _largest_batch(smaller, here)) is not None:
            found += _tried(here, [*changed, f"data.batch_size={batch}"], _with_batch(smaller, batch))
    return found


def _tried(devices: Devices, keys: Sequence[str], config: Config) -> list[str]:
    """The overrides as a remedy, if they are allowed and do."""
    try:
        check_combinations(config)
    except ConfigError:
        return []
    accounts = devices.accounts(config)
    if not keys or not all(account.fits for account in accounts):
        return []
    return [f"{' '.join(keys)} ({max(account.needs for account in accounts) / GIB:.2f} GiB)"]


def _recomputed(before: Config, after: Config, stages: Collection[int]) -> list[str]:
    """Overrides from one configuration to the other, of `memory.recompute`."""
    values = {k: after.stage(k).memory.recompute for k in stages}
    changed = {k: value for k, value in values.items() if value != before.stage(k).memory.recompute}
    usual = set(values.values())
    if len(changed) == before.num_stages and len(usual) == 1 and not any(o.memory for o in before.stages.values()):
        return [f"memory.recompute={usual.pop()}"]
    return [f"stages.{k}.memory.recompute={value}" for k, value in changed.items()]


def _chunks(before: Config, after: Config) -> list[str]:
    """The same of `head.chunk`."""
    pairs = ((k, before.stage(k).head, after.stage(k).head) for k in range(1, before.num_stages + 1))
    return [f"stages.{k}.head.chunk={new.chunk}" for k, old, new in pairs if new != old and hasattr(new, "chunk")]


def _sliced(config: Config, devices: Devices, stages: Collection[int]) -> Config | None:
    """With the largest slices of heads that do, whose units are computed again; as small as is sensible if none does.

    Of the largest stage on each device that is too small, or, where that is not enough, of all stages on it.
    """
    full = [account for account in devices.accounts(config) if not account.fits]
    largest, every = {a.stage for a in full}, {k for a in full for k in (a.stage, *a.others)}
    tried = None
    for group in (largest, every):
        with_head = [k for k in sorted(group & {*stages}) if isinstance(config.stage(k).head, ExpansionConfig)]
        if not with_head or config.mode == "end_to_end":
            return None
        rows = min(config.data.batch_size // config.replicas_of(k) for k in with_head)
        sizes = [
            2**power for power in range(rows.bit_length(), -1, -1) if min(LEAST_CHUNK, rows // 2) <= 2**power < rows
        ]
        tried = _in_slices(config, with_head, sizes[-1])
        if devices.fit(tried):
            chunk = _first(sizes, partial(_slices_fit, config, devices, with_head))
            return _in_slices(config, with_head, chunk or sizes[-1])
    return tried


def _slices_fit(config: Config, devices: Devices, stages: Collection[int], chunk: int) -> bool:
    return devices.fit(_in_slices(config, stages, chunk))


def _in_slices(config: Config, stages: Collection[int], chunk: int) -> Config:
    for index in stages:
        config = _override(config, index, "head", {"chunk": chunk})
        config = _override(config, index, "memory", {"recompute": "units"})
    return config


def _replicas(config: Config, devices: Devices) -> list[str]:
    """The fewest replicas of each stage that is too large, each on a GPU of its own."""
    if CPU in devices.sizes or config.in_one_process or config.processes is not None:
        return []
    data = config.data.model_copy(update={"drop_last": True})
    shared, keys = config.model_copy(update={"data": data, "device": "auto"}), []
    for stage in sorted({account.stage for account in devices.accounts(config) if not account.fits}):
        batch, now = config.data.batch_size, config.replicas_of(stage)
        counts = [n for n in range(now + 1, min(MOST_REPLICAS, batch // 2) + 1) if batch % n == 0]
        count = _first(counts, partial(_fits_alone, shared, devices, stage))
        if count is None:
            return []
        shared = _override(shared, stage, "replicas", count)
        keys.append(f"stages.{stage}.replicas={count}")
    keys += [] if config.data.drop_last else ["data.drop_last=true"]
    try:
        check_combinations(shared)
    except ConfigError:
        return []
    return [f"{' '.join(keys)} on {len(training_processes(shared))} GPUs"]


def _fits_alone(config: Config, devices: Devices, stage: int, replicas: int) -> bool:
    """Whether one of so many replicas of a stage fits a GPU on which there is nothing else."""
    tried = _override(config, stage, "replicas", replicas)
    placements = place(tried, len(training_processes(tried)))
    sizes = {placements[stage - 1].device: min(devices.sizes.values())}
    return Devices(placements, sizes, devices.memory).fit(tried)


def _largest_batch(config: Config, devices: Devices) -> int | None:
    """The largest that fits, nearly; None if not even two images for each replica do."""
    step = lcm(*(config.replicas_of(k) for k in range(1, config.num_stages + 1)))
    least, most = 2 * step, config.data.batch_size
    fits, too_many = 0, most

    def over(batch: int) -> float:
        """How much is needed, as a share of what there is."""
        return max(a.needs / a.has for a in devices.accounts(_with_batch(config, batch)))

    shares = {most: over(most)}
    for _ in range(TRIES):
        if too_many - max(fits, least) <= max(step, most // NEAR) and fits:
            break
        guess = _between(shares, fits, too_many)
        batch = max(_rounded(min(guess, too_many - step), step), fits + step, least)
        if batch >= too_many or batch in shares:
            break
        shares[batch] = over(batch)
        fits, too_many = (batch, too_many) if shares[batch] <= 1 else (fits, batch)
        if too_many == least:
            return None
    return fits or (least if least < too_many and over(least) <= 1 else None)


def _between(shares: Mapping[int, float], fits: int, too_many: int) -> int:
    """Where a straight line through the two nearest batches that were tried says that all is used."""
    if not fits:
        return int(too_many * 0.97 / shares[too_many])
    slope = (shares[too_many] - shares[fits]) / (too_many - fits)
    return int(fits + (1 - shares[fits]) / slope)


def _rounded(batch: int, step: int) -> int:
    """Down to a multiple of the step; of eight of them where there are many."""
    return batch // (8 * step) * 8 * step if batch >= 64 * step else batch // step * step


def _first(values: Sequence[int], does: Callable[[int], bool]) -> int | None:
    """The first of these that does, where all after one that does, do."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if does(values[middle]) else (middle + 1, high)
    return values[low] if low < len(values) else None


def _with_batch(config: Config, batch: int) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update={"batch_size": batch})})


def _override(config: Config, stage: int, section: str, value: Any) -> Config:
    before = config.stages.get(stage, StageOverrides())
    merged = {**getattr(before, section), **value} if isinstance(value, dict) else value
    return config.model_copy(update={"stages": {**config.stages, stage: before.model_copy(update={section: merged})}})
