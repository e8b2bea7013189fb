"""Whether a device holds a process of a plan, by the account of memory, and what has to be computed again for that.

The account is made for a run with that process in it; what the other stages of it are does not matter. It loads torch,
and takes a second or two, so stages that are alike are asked for once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from launch.partition.constraints import Constraints
from launch.partition.costs import Costs, StageCut
from launch.partition.memory_bounds import MemoryBounds
from launch.partition.objective import Plan
from launch.partition.planned_config import config_with
from launch.plan.devices import CPU, DeviceAccount, DeviceProcess, Memory, each_account
from launch.plan.fitting import surely_fits
from launch.plan.memories import ProcessMemories, kind_of_unit
from launch.prepare.link_kind import with_link
from launch.prepare.placement import Placement, place
from launch.prepare.recompute import BY_COST
from pipeline.config import Config
from pipeline.config.heads import ExpansionConfig
from pipeline.config.memory import Recompute
from pipeline.config.model import ModuleConfig
from pipeline.errors import ConfigError
from workers.topology.processes import even_groups, training_processes

CHUNKS = (512, 256, 128, 64)
"""Images of a slice of a head, which are tried where computing again does not do alone: they round differently."""
OTHER = "cuda:0"
"""Where the other processes are put when one on a CPU is asked for, so that they do not count."""

Stages = tuple[StageCut, ...]


@dataclass(frozen=True)
class RunOfProcess:
    """A run with a process that is asked for.

    Args:
        config: of the run.
        placements: one per stage, in order.
        stages: of the process, counted from 1.
        device: of its first replica.
    """

    config: Config
    placements: tuple[Placement, ...]
    stages: tuple[int, ...]
    device: str


class MemoryFit:
    """Asks for the processes of plans; see `launch.partition.process_tables.Fits`. For a process that ends afterwards.

    Args:
        config: of the run.
        costs: of its network, with the memory of a device.
        constraints: of the plans.
        on_gpu: whether devices are GPUs; of a CPU each process is asked for as if it were alone on it.
        memories: what the tensors of processes take.
    """

    def __init__(
        self,
        config: Config,
        costs: Costs,
        constraints: Constraints,
        *,
        on_gpu: bool,
        memories: Memory | None = None,
    ) -> None:
        self._config, self._on_gpu = _movable(config, constraints.hosts, on_gpu), on_gpu
        self.costs, self.constraints = costs, constraints
        self.memories: Memory = memories or ProcessMemories()
        self.bounds = MemoryBounds(config, costs)
        self._names = [unit.unit for unit in costs.units]
        self._asked: dict[object, Stages | None] = {}
        self._path = cache(self._find_path)

    def __call__(self, cuts: Stages) -> Stages | None:
        """The stages of a process as a device holds them; None if it does not."""
        key = tuple(map(self._kind, cuts))
        if key not in self._asked:
            self._asked[key] = self._ask(cuts)
        answer = self._asked[key]
        if answer is None:
            return None
        alike = zip(cuts, answer, strict=True)
        return tuple(replace(cut, recompute=like.recompute, chunk=like.chunk) for cut, like in alike)

    def optimistic(self, cuts: Stages) -> Stages | None:
        """The same at once, with no more recompute than is needed; what is refused does not fit."""
        return self.bounds.optimistic(cuts)

    def account(self, run: RunOfProcess, config: Config | None = None) -> DeviceAccount:
        """Of the device of a process, in a run that has perhaps been changed since."""
        sizes = {run.device: self.costs.memory}
        return next(each_account(config or run.config, run.placements, sizes, self.memories))

    def run_of(self, cuts: Stages) -> RunOfProcess | None:
        """A run with a process that trains these stages, as they are; None if there is none that is valid."""
        for count, processes in self._shapes(cuts):
            before = self._path(1, cuts[0].stage - 1, 0, cuts[0].first - 1)
            after = self._path(cuts[-1].stage + 1, count, cuts[-1].last + 1, len(self._names) - 1)
            if before is None or after is None:
                continue
            plan = Plan(stages=(*before, *cuts, *after), processes=processes, bottleneck=0.0)
            try:
                config = config_with(self._config, plan, self._names)
                return self._placed(config, tuple(cut.stage for cut in cuts))
            except ConfigError:
                continue
        return None

    def thriftiest(self, cuts: Stages) -> Iterator[RunOfProcess]:
        """Runs with a process that needs as little as is possible: with the smallest chunks, and each recompute."""
        chunks = {cut.stage: self._chunks(cut)[-1:] for cut in cuts}
        for mode in self._modes(cuts):
            least = [replace(cut, recompute=mode, chunk=next(iter(chunks[cut.stage]), None)) for cut in cuts]
            if (run := self.run_of(tuple(least))) is not None:
                yield run

    def _ask(self, cuts: Stages) -> Stages | None:
        """With the least recompute that may do, and more of it in the stage whose step needs most, until it fits."""
        tried = self.optimistic(cuts)
        if tried is None:
            return None
        while tried is not None and (run := self.run_of(tried)) is not None:
            if self._holds(run):
                return tried
            tried = _with_more_recompute(tried, self.account(run))
        return self._in_slices(cuts)

    def _holds(self, run: RunOfProcess) -> bool:
        """Whether the device does; where more than it will need fits, no account is made."""
        process, sizes = DeviceProcess("", run.stages, run.device), {run.device: self.costs.memory}
        return surely_fits(run.config, [process], sizes) or self.account(run).fits

    def _in_slices(self, cuts: Stages) -> Stages | None:
        """With the largest chunks that do, and the least recompute beside them; the smallest are asked for first."""

        def sliced(mode: Recompute, size: int) -> Stages:
            smaller = [size if size in self._chunks(cut) else None for cut in cuts]
            return tuple(replace(cut, recompute=mode, chunk=c) for cut, c in zip(cuts, smaller, strict=True))

        sizes = sorted({size for cut in cuts for size in self._chunks(cut)}, reverse=True)
        for mode in self._modes(cuts):
            if sizes and mode != "none" and self._fits(sliced(mode, sizes[-1])):
                return next(sliced(mode, size) for size in sizes if self._fits(sliced(mode, size)))
        return None

    def _fits(self, cuts: Stages) -> bool:
        run = self.run_of(cuts)
        return run is not None and self._holds(run)

    def _modes(self, cuts: Stages) -> tuple[Recompute, ...]:
        """That all stages of a process may take, which is no less than what they are given."""
        return BY_COST[max(BY_COST.index(self.bounds.given(cut.stage)) for cut in cuts) :]

    def _chunks(self, cut: StageCut) -> tuple[int, ...]:
        """Smaller than what the stage has, the largest first."""
        known = cut.stage <= self._config.num_stages
        head = self._config.stage(cut.stage).head if known else self._config.head
        if not isinstance(head, ExpansionConfig):
            return ()
        rows = self.costs.batch // cut.replicas
        return tuple(size for size in CHUNKS if size < min(rows, head.chunk or rows))

    def _shapes(self, cuts: Stages) -> Iterator[tuple[int, int | None]]:
        """Numbers of stages, and of processes that share them, with a process for exactly these."""
        wanted = tuple(cut.stage for cut in cuts)
        for count in self.constraints.stages:
            if len(cuts) == 1:
                yield count, None
            else:
                shared = range(1, count)
                yield from ((count, number) for number in shared if wanted in even_groups(count, number))

    def _find_path(self, stage: int, last_stage: int, first: int, last: int) -> Stages | None:
        """Some way to cut these units into these stages, which may be none; None if there is no way."""
        if stage > last_stage:
            return () if first > last else None
        final = stage == last_stage
        for end in [last] if final else range(first, last):
            output = self.costs.units_of(stage)[end].output or end == len(self._names) - 1
            if end >= first and (stage, end) in self.costs.ends and output:
                rest = self._path(stage + 1, last_stage, end + 1, last)
                if rest is not None:
                    return (StageCut(stage=stage, first=first, last=end), *rest)
        return None

    def _placed(self, config: Config, stages: tuple[int, ...]) -> RunOfProcess:
        placements = place(config, len(training_processes(config)) if self._on_gpu else 0)
        if not self._on_gpu:
            elsewhere = [replace(p, device=OTHER, others=(OTHER,) * len(p.others)) for p in placements]
            pairs = zip(placements, elsewhere, strict=True)
            placements = tuple(here if here.stage in stages else other for here, other in pairs)
        return RunOfProcess(config, placements, stages, placements[stages[0] - 1].device)

    def _kind(self, cut: StageCut) -> object:
        """The same for stages that need the same."""
        place_of = (cut.first == 0, cut.last == len(self._names) - 1)
        if self._config.stages or isinstance(self._config.model, ModuleConfig):
            return (cut.stage, cut.first, cut.last, cut.replicas)
        return (tuple(map(kind_of_unit, self._names[cut.first : cut.last + 1])), cut.replicas, *place_of)


def _with_more_recompute(cuts: Stages, account: DeviceAccount) -> Stages | None:
    """The same in the stage whose step is the largest part of what is needed, or else in another; None if all is."""
    left = {cut.stage: BY_COST[BY_COST.index(cut.recompute) + 1 :] for cut in cuts}
    stage = next((index for index in (account.stage, *account.others) if left.get(index)), None)
    if stage is None:
        return None
    return tuple(replace(cut, recompute=left[stage][0]) if cut.stage == stage else cut for cut in cuts)


def _movable(config: Config, hosts: int, on_gpu: bool) -> Config:
    """A run whose stages are on whatever device they are put on.

    Batches between GPUs are taken to wait in the memory of the host, unless the run says otherwise: the start keeps
    them on the GPUs only where these hold them, too.
    """
    link = with_link(config, on_one_host=hosts == 1).link
    if link.device_to_device == "auto":
        link = link.model_copy(update={"device_to_device": False})
    stages = {index: own.model_copy(update={"device": None}) for index, own in config.stages.items()}
    return config.model_copy(update={"link": link, "stages": stages, "device": "auto" if on_gpu else CPU})
