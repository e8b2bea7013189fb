"""Which process trains which stages. Does not import torch.

Neighbouring stages may share a process (`processes`), and a stage may be shared by replicas (`stages.K.replicas`):

    stage         1      2  3      4
    stage group   0      1         2       links connect group g with group g + 1
    rank          0      1         2 3     group 2 has two replicas: each trains on half of every batch
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import Config

COORDINATOR = "coordinator"
KEY_FILE = "key"
"""Name of the key in the private folder of a run."""


@dataclass(frozen=True)
class TrainingProcess:
    """One training process.

    Args:
        rank: among the training processes, from 0, in the order of the stages.
        stage_group: which group of neighbouring stages it trains, from 0.
        stages: of the group, counted from 1.
        replica: number among the replicas of the group, counted from 1.
        replicas: processes that share every batch of this group.
    """

    rank: int
    stage_group: int
    stages: tuple[int, ...]
    replica: int = 1
    replicas: int = 1

    @property
    def name(self) -> str:
        """Name of the process in messages."""
        if len(self.stages) > 1:
            return f"stages {self.stages[0]}-{self.stages[-1]}"
        return stage_name(self.stages[0]) + (f" replica {self.replica}" if self.replicas > 1 else "")

    @property
    def log_name(self) -> str:
        """Name of its log file, without the ending."""
        return self.name.replace(" ", "_")

    @property
    def reports(self) -> bool:
        """Whether it reports for its stages: all replicas would report the same, so the first does."""
        return self.replica == 1


def stage_name(index: int) -> str:
    """Name of stage `index`, counted from 1, in messages."""
    return f"stage {index}"


def stage_groups(config: Config) -> list[tuple[int, ...]]:
    """The stages of every stage group, in order."""
    return even_groups(config.num_stages, config.processes or config.num_stages)


def even_groups(stages: int, count: int) -> list[tuple[int, ...]]:
    """So many stages, counted from 1, as `count` groups of neighbours."""
    bounds = [number * stages // count for number in range(count + 1)]
    return [tuple(range(bounds[n] + 1, bounds[n + 1] + 1)) for n in range(count)]


def training_processes(config: Config) -> list[TrainingProcess]:
    """Every training process, ordered by rank."""
    found: list[TrainingProcess] = []
    for number, stages in enumerate(stage_groups(config)):
        replicas = config.replicas_of(stages[0])
        found += [TrainingProcess(len(found) + r, number, stages, r + 1, replicas) for r in range(replicas)]
    return found


def replicas_of(processes: list[TrainingProcess], stage_group: int) -> list[TrainingProcess]:
    """The processes of one stage group."""
    return [process for process in processes if process.stage_group == stage_group]
