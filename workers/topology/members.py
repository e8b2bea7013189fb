"""Which process trains what: the stages in order, some sharing a process, some shared by several. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import Config

COORDINATOR = "coordinator"
KEY_FILE = "key"
"""In the private folder of a run."""


@dataclass(frozen=True)
class TrainingProcess:
    """One training process.

    Args:
        rank: among the training processes, from 0, in the order of the stages.
        unit: which group of neighbouring stages it trains, from 0; links connect one unit with the next.
        stages: of the unit, counted from 1.
        replica: counted from 1.
        replicas: processes that share the batch of this unit.
    """

    rank: int
    unit: int
    stages: tuple[int, ...]
    replica: int = 1
    replicas: int = 1

    @property
    def name(self) -> str:
        """The process in words."""
        if len(self.stages) > 1:
            return f"stages {self.stages[0]}-{self.stages[-1]}"
        return stage_name(self.stages[0]) + (f" replica {self.replica}" if self.replicas > 1 else "")

    @property
    def log_name(self) -> str:
        """The name of its log."""
        return self.name.replace(" ", "_")

    @property
    def reports(self) -> bool:
        """Whether it speaks for its stages: replicas report the same."""
        return self.replica == 1


def stage_name(index: int) -> str:
    """Stage `index`, counted from 1, in words."""
    return f"stage {index}"


def units(config: Config) -> list[tuple[int, ...]]:
    """The groups of neighbouring stages that share processes, in order."""
    count, stages = config.processes or config.num_stages, config.num_stages
    bounds = [number * stages // count for number in range(count + 1)]
    return [tuple(range(bounds[n] + 1, bounds[n + 1] + 1)) for n in range(count)]


def members(config: Config) -> list[TrainingProcess]:
    """Every training process, by rank."""
    found: list[TrainingProcess] = []
    for number, stages in enumerate(units(config)):
        replicas = config.replicas_of(stages[0])
        found += [TrainingProcess(len(found) + r, number, stages, r + 1, replicas) for r in range(replicas)]
    return found


def of_unit(everyone: list[TrainingProcess], unit: int) -> list[TrainingProcess]:
    """The replicas of one unit."""
    return [member for member in everyone if member.unit == unit]
