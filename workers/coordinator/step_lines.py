"""Writes `metrics.jsonl`: a line for every step, or one for several (`metrics.every`), which keeps what they add up to.

    step          6          7          8          9         every: 4, snapshot after 9 steps
    loss         0.9        2.5        0.8        0.7
    line                     |                     |  ... 8 | 9 ...
                 {"step": 7, "steps": 4, "loss": 2.5, "loss_max": 2.5, "added": of steps 4 to 7}

Lines end at the same steps in every attempt: with every snapshot, from which a later attempt goes on, and with every
step whose digests are recorded, which are of a single step. A step whose length is not known has a line of its own:
rates could not be told from a sum with it. What is null is left out.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.ordinary_files import open_to_write
from workers.observing.amounts import Sums, written

MEASURED_AT_TIMES = ("gradient_norm", "update_norm", "snapshot_seconds")
"""Values of a stage that not every step measures: the last one counts."""


class StepLines:
    """The file, which is written line by line.

    Args:
        path: of the file; it is appended to.
        ends: numbers of steps; a line ends after each multiple of one of them.
        written: called with every line that is in the file.
    """

    def __init__(
        self, path: Path, ends: Sequence[int] = (1,), written: Callable[[Mapping[str, Any]], None] = lambda line: None
    ) -> None:
        self._ends, self._written = ends, written
        self._file = io.TextIOWrapper(open_to_write(path, path.parent), encoding="utf-8", line_buffering=True)
        self._held: dict[str, Any] | None = None

    def add(self, line: Mapping[str, Any]) -> None:
        """Add the next step; see `Recorder` for what a line has."""
        if "seconds" not in line["added"]:
            self._write()
        self._held = dict(line) if self._held is None else joined(self._held, line)
        if "seconds" not in line["added"] or any((line["step"] + 1) % period == 0 for period in self._ends):
            self._write()

    def close(self) -> None:
        """Write what is left; may be called again."""
        if not self._file.closed:
            self._write()
            self._file.close()

    def _write(self) -> None:
        if self._held is not None:
            self._file.write(json.dumps(without_nulls(self._held)) + "\n")
            self._written(self._held)
        self._held = None


def joined(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """One line of neighbouring steps: sums of what was added, last values, and the largest loss of each stage."""
    stages = {stage["stage"]: stage for stage in before["stages"]}
    for stage in after["stages"]:
        number = stage["stage"]
        stages[number] = _of_stage(stages[number], stage) if number in stages else stage
    return {
        **after,
        "steps": before.get("steps", 1) + 1,
        "images": before["images"] + after["images"],
        "added": _sums(before, after),
        "stages": [stages[number] for number in sorted(stages)],
    }


def _of_stage(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    losses = [loss for loss in (before.get("loss_max", before["loss"]), after["loss"]) if loss is not None]
    kept = {name: before[name] for name in MEASURED_AT_TIMES if after.get(name) is None and name in before}
    online = {**before.get("online", {}), **after.get("online", {})}
    return {
        **after,
        **kept,
        "loss_max": max(losses, default=None),
        "added": _sums(before, after),
        **({"online": online} if online else {}),
    }


def _sums(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    sums = Sums(before["added"])
    sums.add(after["added"])
    return written(sums)


def without_nulls(values: Any) -> Any:
    """The same without keys whose value is None, at any depth."""
    if isinstance(values, dict):
        return {name: without_nulls(value) for name, value in values.items() if value is not None}
    return [without_nulls(value) for value in values] if isinstance(values, list) else values
