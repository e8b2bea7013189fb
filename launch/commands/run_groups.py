"""Runs that differ only in their seed count as one: they are samples of the same, and stand under one letter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from launch.commands.evaluation_reader import EvaluatedRun
from launch.prepare.config_differences import deciding_differences, differing_keys, flatten
from launch.results.evaluation_settings import other_settings
from pipeline.config import Config
from pipeline.config.secrets import without_secrets
from pipeline.evaluation.document import EvaluationResults


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed, under a letter."""

    label: str
    runs: tuple[EvaluatedRun, ...]

    @property
    def documents(self) -> list[EvaluationResults]:
        """Their evaluations."""
        return [run.document for run in self.runs]

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration of its first run, flat, without secrets."""
        return flatten(without_secrets(self.runs[0].config))


def group_runs(runs: Sequence[EvaluatedRun], measures: Collection[str]) -> list[Group]:
    """Group the runs whose configurations differ only in the seed, and that were measured with the same settings.

    A seed is in a group once: another run of the same seed is no new sample, so it gets a group of its own.

    Args:
        runs: in the order of the groups.
        measures: that are compared, and must have been measured with the same settings and after as many steps.
    """
    groups: list[list[EvaluatedRun]] = []
    for run in runs:
        for group in groups:
            first = group[0].document
            alike = first.checkpoint == run.document.checkpoint
            alike = alike and not any(other_settings(first, run.document, measures))
            same_seed = any(other.config.seed == run.config.seed for other in group)
            if alike and not same_seed and not _differences(group[0].config, run.config):
                group.append(run)
                break
        else:
            groups.append([run])
    return [Group(_letters(index), tuple(group)) for index, group in enumerate(groups)]


def _differences(earlier: Config, config: Config) -> list[str]:
    """The differences that decide the numbers, but for the seed, each as `KEY is X there, Y here`."""
    return [*deciding_differences(earlier, config.model_copy(update={"seed": earlier.seed})).values()]


def changes(first: Group, other: Group) -> list[str]:
    """The differences between two groups, without keys of sections of another kind, which that kind stands for."""
    here = other.runs[0].config.model_copy(update={"seed": first.runs[0].config.seed})
    changed, kept = deciding_differences(first.runs[0].config, here), differing_keys([first.settings, other.settings])
    return [text for key, text in changed.items() if key in kept] or [*changed.values()]


def samples(group: Group) -> set[tuple[int, int | None]]:
    """Seed and number of steps of every run."""
    return {(run.config.seed, run.document.checkpoint) for run in group.runs}


def _letters(index: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    letter = chr(ord("A") + index % 26)
    return letter if index < 26 else _letters(index // 26 - 1) + letter
