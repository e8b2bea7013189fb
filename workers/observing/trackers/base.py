"""The tracker interface: four calls, all from one thread."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from workers.observing.observer import Event, RunFacts


class Tracker:
    """Base class of all trackers; override what you need, and take options in `__init__`.

    It runs in a thread of the coordinator and may be slow: steps that it cannot keep up with are skipped. If it raises
    in `__init__` or `start`, the run does not begin; if it raises later, it is not called again, and the run goes on.
    """

    def start(self, facts: RunFacts) -> None:
        """Before the first step; `facts.start_step` says which that is, more than 0 where a stopped run goes on."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """What was measured at a step.

        Args:
            step: counted from 0, as in `metrics.jsonl`.
            numbers: by name, see `flatten`.
        """

    def event(self, event: Event) -> None:
        """An alarm, a restart, a snapshot."""

    def end(self, outcome: str) -> None:
        """The last call; `done`, `failed: CAUSE` or `interrupted`. Must return within seconds."""


def flatten(line: Mapping[str, Any]) -> dict[str, float]:
    """A line of `metrics.jsonl` as numbers by name; null values are left out.

    `images_per_second` and the like are of the run. Of stage 2 are `stage_2/loss`, `stage_2/loss/TERM`,
    `stage_2/busy` and so on, and what is measured online: `stage_2/linear`, `stage_2/rankme`.
    """
    numbers = {name: float(value) for name, value in line.items() if _counts(value) and name not in ("step", "time")}
    for stage in line["stages"]:
        prefix = f"stage_{stage['stage']}"
        for name, value in stage.items():
            if name == "terms":
                numbers |= {f"{prefix}/loss/{term}": float(part) for term, part in value.items() if _counts(part)}
            elif name == "online":
                numbers |= {f"{prefix}/{_distinct(key)}": float(part) for key, part in value.items() if _counts(part)}
            elif _counts(value) and name not in ("stage", "step"):
                numbers[f"{prefix}/{name}"] = float(value)
    return numbers


def _distinct(measure: str) -> str:
    """`skipped` of a stage is another count, so that of the online measures is renamed."""
    return "online_skipped" if measure == "skipped" else measure


def _counts(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
