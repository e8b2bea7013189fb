"""A line of `metrics.jsonl` as plain numbers by stage and name: what was measured, and what the step has added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workers.observing.amounts import RUN, RUN_TOTALS, STAGE_TOTALS, amounts, finite, finite_of
from workers.observing.downsampler import Key

STAGE_LEVELS = (
    "loss", "learning_rate", "queue_depth", "gradient_norm", "update_norm", "memory_bytes", "cuda_bytes",
    "cuda_peak_bytes", "peak_flops", "snapshot_seconds",
)  # fmt: skip
STAGE_GROUPS = {"terms": "term:", "online": "online:"}
"""Prefix of the names of each group of numbers."""
RUN_LEVELS = (
    "epoch", "images", "images_per_second", "bound_images_per_second", "predicted_images_per_second", "eta_seconds",
)  # fmt: skip
MAX_NAMES = 64
"""Maximum number of names per group and stage."""
MAX_LENGTH = 80
"""Maximum number of characters of a name."""


def numbers_of(line: Mapping[str, Any]) -> dict[Key, float]:
    """All finite numbers of a line.

    Returns:
        By stage and name. For totals, what this step added. `step_seconds` of the run: time since the step before,
        missing where that is unknown or a process was replaced in between.
    """
    values: dict[Key, float] = {}
    _put(values, RUN, finite_of(line, RUN_LEVELS) | amounts(line, RUN_TOTALS))
    if values.get((RUN, "images_per_second")) == 0:
        del values[RUN, "images_per_second"]  # of the first step, whose throughput is unknown
    if (seconds := finite(line["added"].get("seconds"))) is not None:
        values[RUN, "step_seconds"] = seconds
    for stage in line["stages"]:
        if not (index := stage["stage"]):
            continue  # not one of our stages, which count from 1
        _put(values, index, finite_of(stage, STAGE_LEVELS))
        if stage.get("frozen"):
            values.pop((index, "learning_rate"), None)  # it is 0: a curve of it would be of nothing
        _put(values, index, amounts(stage, STAGE_TOTALS))
        for group, prefix in STAGE_GROUPS.items():
            if members := stage.get(group):
                names = list(members)[:MAX_NAMES] if isinstance(members, dict) else ()
                _put(values, index, {prefix + name[:MAX_LENGTH]: n for name, n in finite_of(members, names).items()})
    return values


def _put(values: dict[Key, float], stage: int, numbers: Mapping[str, float]) -> None:
    for name, number in numbers.items():
        values[stage, name] = number
