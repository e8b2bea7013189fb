"""What would make a run fit its devices: each change is tried with the account, and the least of its kind is named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm
from time import process_time
from typing import Any

from launch.plan.account import ProcessAccount
from launch.plan.devices import CPU, DeviceAccount, Memory, device_accounts, device_processes, each_account, peaks
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
"""Seconds of the processor after which no further account is made."""
SMALL_GAIN = 50
"""Slices that are smaller by half are not worth their kernels where they save less than one in so many bytes."""
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

    def each(self, config: Config) -> Iterator[DeviceAccount]:
        """The same one by one, in order of `sizes`: one that is not asked for is not computed."""
        return each_account(config, self.placements, self.sizes, self.memory)

    def fit(self, config: Config) -> bool:
        """Whether they hold a run."""
        return all(account.fits for account in self.each(config))


class SearchEnded(Exception):
    """The time for it is up, and nothing was found."""


class _TimeUp(Exception):
    """No further account is made."""


def _impatient() -> bool:
    """Whether the process that looks for remedies, a child of its own, has used enough of the processor."""
    return process_time() > PATIENCE


def remedies(config: Config, devices: Devices, resumed: bool, impatient: Callable[[], bool] = _impatient) -> list[str]:
    """Changes of which each makes the run fit, as overrides and what it needs then, the least costly first.

    Args:
        config: of the run; `memory.recompute` and `link.device_to_device` are decided.
        devices: it is to run on.
        resumed: only what leaves the numbers alone may change.
        impatient: whether no further account is made; what was found by then is returned.

    Returns:
        Nothing where it fits, or where no change does that is known here.

    Raises:
        SearchEnded: nothing was found before `impatient`.
    """

    def memory(tried: Config, stages: tuple[int, ...], on_gpu: bool) -> ProcessAccount:
        if impatient():
            raise _TimeUp
        return devices.memory(tried, stages, on_gpu)

    found: list[str] = []
    try:
        for change in _changes(config, replace(devices, memory=memory), resumed):
            found.append(change)
    except _TimeUp:
        if not found:
            raise SearchEnded(f"the search for it has taken {PATIENCE:.0f} s of the processor") from None
    return found


def _changes(config: Config, devices: Devices, resumed: bool) -> Iterator[str]:
    full = sorted(
        (account for account in devices.accounts(config) if not account.fits), key=lambda a: -a.needs / max(a.has, 1)
    )
    if not full:
        return
    here = replace(devices, sizes={account.device: account.has for account in full})  # the fullest is asked first
    stages = [k for m in device_processes(config, devices.placements) if m.device in here.sizes for k in m.stages]
    thrifty = resolve_recompute(config, stages, here.sizes, lambda tried: peaks(here.accounts(tried)))
    if config.link.rings and CPU not in here.sizes:
        link = config.link.model_copy(update={"device_to_device": False})
        yield from _tried(here, ["link.device_to_device=false"], config.model_copy(update={"link": link}))
    found = _tried(here, _recomputed(config, thrifty, stages), thrifty)
    if not found and not resumed:
        thrifty, does = _sliced(thrifty, here, stages)
        if does:
            found = _tried(here, _recomputed(config, thrifty, stages) + _chunks(config, thrifty), thrifty)
    yield from found
    smaller = config if found else thrifty
    yield from _replicas(config, here)
    if not resumed:
        changed = _recomputed(config, smaller, stages) + _chunks(config, smaller)
        if (batch := _largest_batch(smaller, here)) is not None:
            yield from _tried(here, [*changed, f"data.batch_size={batch}"], _with_batch(smaller, batch))


def _tried(devices: Devices, keys: Sequence[str], config: Config) -> list[str]:
    """The overrides as a remedy, if they are allowed and do."""
    try:
        check_combinations(config)
    except ConfigError:
        return []
    if not keys or not devices.fit(config):
        return []
    return [f"{' '.join(keys)} ({max(account.needs for account in devices.accounts(config)) / GIB:.2f} GiB)"]


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


def _sliced(config: Config, devices: Devices, stages: Collection[int]) -> tuple[Config, bool]:
    """With the largest slices of heads that do, whose units are computed again; as small as is sensible if none does.

    And whether they do.

    Of the largest stage on each device that is too small, or, where that is not enough, of all stages on it.
    """
    full = [account for account in devices.accounts(config) if not account.fits]
    largest, every = {a.stage for a in full}, {k for a in full for k in (a.stage, *a.others)}
    tried = config
    for group in (largest, every)[: 1 + (largest != every)]:
        with_head = [k for k in sorted(group & {*stages}) if isinstance(config.stage(k).head, ExpansionConfig)]
        if not with_head or config.mode == "end_to_end":
            return config, False
        rows = min(config.data.batch_size // config.replicas_of(k) for k in with_head)
        sizes = [
            2**power for power in range(rows.bit_length(), -1, -1) if min(LEAST_CHUNK, rows // 2) <= 2**power < rows
        ]
        for size in sizes:
            before, tried = tried, _in_slices(config, with_head, size)
            if devices.fit(tried):
                return tried, True
            if size < sizes[0] and _smaller_is_vain(devices, before, tried, sizes[-1] / size):
                tried = _in_slices(config, with_head, sizes[-1])
                break
    return tried, False


def _smaller_is_vain(devices: Devices, before: Config, halved: Config, least: float) -> bool:
    """Whether slices of half the size have saved next to nothing, and the smallest are too large all the same.

    What is needed at one moment is a straight line over the size of the slices, and the peak is the highest of all such
    lines: from two sizes on, the next ones save no more than these two did.

    Args:
        devices: of which the fullest is asked.
        before, halved: the run with slices of twice the size, and with these.
        least: the smallest size, as a share of this one.
    """
    twice, now = (next(devices.each(config)) for config in (before, halved))
    saved = twice.needs - now.needs
    return saved < twice.needs / SMALL_GAIN and now.needs - saved * (1 - least) > now.has


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
    full = {account.stage: account for account in devices.accounts(config) if not account.fits}
    for stage in sorted(full):
        batch, now = config.data.batch_size, config.replicas_of(stage)
        counts = [n for n in range(now + 1, min(MOST_REPLICAS, batch // 2) + 1) if batch % n == 0]
        if len(full[stage].processes) == 1:  # its need is no less than in proportion to its rows
            counts = [n for n in counts if n * full[stage].has >= now * full[stage].needs]
        count = next((n for n in counts if _fits_alone(shared, devices, stage, n)), None)
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
        """How much is needed of the fullest device, as a share of what there is; or of the first that is too small."""
        most = 0.0
        for account in devices.each(_with_batch(config, batch)):
            most = max(most, account.needs / account.has)
            if most > 1:
                break
        return most

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


def _with_batch(config: Config, batch: int) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update={"batch_size": batch})})


def _override(config: Config, stage: int, section: str, value: Any) -> Config:
    before = config.stages.get(stage, StageOverrides())
    merged = {**getattr(before, section), **value} if isinstance(value, dict) else value
    return config.model_copy(update={"stages": {**config.stages, stage: before.model_copy(update={section: merged})}})
