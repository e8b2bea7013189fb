"""Steps of a run that never was, for what its headroom is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workers.observing.step_sums import Phase, StepSums

IMAGES = 8
"""Of every step."""


def line(step: int, *stages: Mapping[str, float], seconds: float | None = 1.0, rate: float = 8.0) -> dict[str, Any]:
    """Of `metrics.jsonl`: what a step has added; `seconds` is None where a process was replaced."""
    return {
        "step": step,
        "images": IMAGES,
        "images_per_second": rate if step else 0.0,
        "added": {} if seconds is None else {"seconds": seconds},
        "stages": [{"stage": number, "added": dict(spent)} for number, spent in enumerate(stages, 1)],
    }


def phase(*stages: Mapping[str, float], steps: int = 10, **run: float) -> Phase:
    """Of so many equal steps, each of which took the stages so many seconds."""
    sums = StepSums(1e9)
    for step in range(steps + 1):
        sums.add(line(step, *stages), {"images": IMAGES, "decode": run.get("feed", 0.0)}, float(step))
    (found,) = sums.whole()
    return Phase({**found.run, "lost": run.get("lost", 0.0)}, found.stages)


def even(count: int, busy: float, **others: float) -> Sequence[Mapping[str, float]]:
    """So many stages that spend the same."""
    return [{"busy": busy, **others}] * count
