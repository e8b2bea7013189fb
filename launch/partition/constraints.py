"""What a plan may do: how many devices there are and on which hosts, where the network may be cut, what may be shared.

Ranks are placed in order: host 0 has the first ranks, host 1 the next ones. A rank beyond all devices, which is asked
for to say what one more device would bring, is on the last host.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.config.engines import DeepSpeedEngineConfig
from pipeline.errors import ConfigError, UserError


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Of a search.

    Args:
        devices: how many there are; each process has one of its own.
        per_host: devices of a host; all of them where there is one host.
        stages: allowed numbers of stages.
        cuts: numbers of the last units of all stages but the last, from 0, where they are kept; None if they are free.
        replicas: allowed numbers of replicas of a stage, 1 among them.
        processes: whether neighbouring stages may share a process.
        preferred: the cuts as the configuration has them, which win over others that are as good.
    """

    devices: int
    per_host: int
    stages: tuple[int, ...]
    cuts: tuple[int, ...] | None
    replicas: tuple[int, ...]
    processes: bool
    preferred: tuple[int, ...] = ()

    @property
    def hosts(self) -> int:
        """How many there are."""
        return -(-self.devices // self.per_host)

    def host_of(self, rank: int) -> int:
        """The host of a training process, from 0; that of the coordinator, whose rank is -1 here, is the first."""
        return min(max(rank, 0) // self.per_host, self.hosts - 1)

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        devices: int,
        hosts: int = 1,
        keep_cuts: bool = False,
        stages: Collection[int] | None = None,
        units: Sequence[str] | None = None,
    ) -> Constraints:
        """What a configuration allows.

        Args:
            config: of the run.
            devices: how many there are on all hosts together.
            hosts: which have equally many; the last one what is left.
            keep_cuts: keep the cuts of the configuration.
            stages: allowed numbers of stages, of which those are left out that have no stage for settings of its own
                (`stages.K`); that of the configuration if not given.
            units: names of the units that plans cut between, in order; those of the configuration if not given.

        Raises:
            ConfigError: the configuration trains in one process, or its blocks one after the other.
            UserError: a number is not possible, or there are more devices than can be used.
        """
        _check_mode(config)
        names, numbers = list(units or config.model.units()), sorted(set(stages or {config.num_stages}))
        _check_numbers(config, devices, hosts, keep_cuts, numbers, len(names))
        _check_usable(config, devices, max(numbers))
        ends = cut_units(config, names)
        return cls(
            devices=devices,
            per_host=-(-devices // hosts),
            stages=tuple(count for count in numbers if count >= max(config.stages, default=0)),
            cuts=ends if keep_cuts else None,
            replicas=tuple(count for count in range(1, devices + 2) if count == 1 or _may_replicate(config, count)),
            processes=not _uses_deepspeed(config),
            preferred=ends,
        )


def cut_units(config: Config, units: Sequence[str]) -> tuple[int, ...]:
    """The last units of all stages but the last, as numbers from 0, among all units of the network."""
    return tuple(units.index(block[-1]) for block in config.model.blocks()[:-1])


def _check_mode(config: Config) -> None:
    if config.in_one_process:
        path, value = ("mode", config.mode) if config.mode == "end_to_end" else ("runtime", config.runtime)
        problem = f"got '{value}', which trains all blocks in one process, so that there is nothing to divide"
        raise ConfigError(path, problem, "Give runtime=pipelined and mode=simultaneous")
    if config.mode == "sequential":
        problem = "got 'sequential', which trains one block at a time, and a plan is for blocks that all learn"
        raise ConfigError("mode", problem, "Give mode=simultaneous")


def _check_numbers(
    config: Config, devices: int, hosts: int, keep_cuts: bool, stages: Sequence[int], units: int
) -> None:
    if devices < 1:
        raise UserError(f"got {devices} GPUs to plan for. Give 1 or more")
    if not 1 <= hosts <= devices:
        raise UserError(f"got {devices} GPUs on {hosts} hosts. Give 1 to {devices} hosts")
    if wrong := [count for count in stages if not 1 <= count <= units]:
        raise UserError(f"got {wrong[0]} stages, and the network has {units} units. Give 1 to {units} stages")
    if (most := max(config.stages, default=0)) > max(stages):
        problem = f"has settings of its own, and with {max(stages)} stages there is no such stage"
        raise ConfigError(f"stages.{most}", problem, f"Leave it out, or give {most} stages or more")
    if keep_cuts and tuple(stages) != (config.num_stages,):
        problem = f"got {', '.join(map(str, stages))} stages, and the cuts that are kept make {config.num_stages}"
        raise UserError(f"{problem}. Leave out either the cuts or the stages")


def _check_usable(config: Config, devices: int, stages: int) -> None:
    """Raises `UserError` if some devices would have nothing to do, whatever the plan."""
    why, remedy = _why_no_replicas(config)
    batch = config.data.batch_size
    largest = 1 if why else next((batch // each for each in range(2, batch) if batch % each == 0), 1)
    if devices <= stages * largest:
        return
    counted = f"{stages} stage{'s' * (stages > 1)}"
    if not why:
        why = f"a batch of {batch} images can be shared by {largest} replicas at most, two images or more each"
        remedy = "a larger data.batch_size"
    problem = f"{stages * largest} of {devices} GPUs can be used at most: {counted}, and {why}"
    raise UserError(f"{problem}. Give --gpus {stages * largest}, {remedy}, or more stages (model.cuts)")


def _why_no_replicas(config: Config) -> tuple[str, str]:
    """Why no stage may have replicas, and what to change; empty if stages may."""
    if not config.data.drop_last:
        why = "a stage has no replicas as long as the smaller batch at the end of an epoch is kept"
        return why, "data.drop_last=true"
    if _compiles(config):
        return "a stage that is compiled has no replicas", "precision.compile=false"
    return "", ""


def _may_replicate(config: Config, count: int) -> bool:
    """See `pipeline.validation.topology`."""
    batch = config.data.batch_size
    return not _why_no_replicas(config)[0] and batch % count == 0 and batch // count >= 2


def _compiles(config: Config) -> bool:
    return any(config.stage(index).precision.compile for index in range(1, config.num_stages + 1))


def _uses_deepspeed(config: Config) -> bool:
    stages = range(1, config.num_stages + 1)
    return any(isinstance(config.stage(index).engine, DeepSpeedEngineConfig) for index in stages)
