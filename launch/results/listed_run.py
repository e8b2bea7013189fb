"""What a list of many runs says of each: read from its small files and two lines of `metrics.jsonl`, in milliseconds.

Nothing is imported, built or validated: a run may be another user's, of another version, or half written.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from launch.prepare.config_differences import flatten
from launch.prepare.provenance import read_starts
from launch.results.run_state import run_outcome
from pipeline.config.places import FEATURES
from pipeline.config.secrets import values_without_secrets
from pipeline.errors import UserError
from pipeline.ordinary_files import read_whole
from pipeline.validation.loading import MAX_BYTES, parse_values
from workers.observing.history_file import first_and_last_step
from workers.run.files import RunDir, read_object

PROBES = ("trunk", "expansion")
QUICK = "linear/quick"


@dataclass(frozen=True)
class BestAccuracy:
    """The highest accuracy of one measure over all blocks and features.

    Args:
        value: share of 1.
        block: counted from 1.
        feature: of the block; empty for what is measured while training.
    """

    value: float
    block: int
    feature: str


@dataclass(frozen=True)
class ListedRun:
    """One run of a list; None, or nothing, stands for what its files do not say.

    Args:
        path: its directory.
        state: see `RunOutcome`.
        begun: time of its first start, ISO 8601; of earlier versions of its first step, seconds since 1970.
        steps, total_steps: trained, and in all.
        epochs, total_epochs: likewise.
        images_per_second: of the whole last attempt, or, until that has ended, at the last step.
        seconds: of training; until the run has ended, from its first step to its last.
        best: by measure: `linear/quick`, other measures of `onward evaluate`, `online/linear`, `online/knn`.
        settings: its configuration, flat, without secrets.
        start: its last record of `provenance.json`.
    """

    path: Path
    state: str
    _: KW_ONLY
    begun: str | float | None = None
    steps: int = 0
    total_steps: int | None = None
    epochs: float | None = None
    total_epochs: float | None = None
    images_per_second: float | None = None
    seconds: float | None = None
    best: dict[str, BestAccuracy] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)


def run_folders(folder: Path) -> list[Path]:
    """All folders in a folder, by name, whatever is in them; the folder alone if it is a run itself.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if RunDir(folder).config.is_file():
            return [folder]
        return sorted(
            Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError as error:
        problem = f"'{folder}' cannot be read ({error.strerror})"
        raise UserError(f"{problem}. Give the folder of runs, such as runs/") from None


def read_listed(path: Path) -> ListedRun:
    """Read one run.

    Raises:
        OSError, ValueError: its configuration or its lock cannot be read.
    """
    run = RunDir(path)
    settings = _settings(run)
    report, state = _object(run.report), _object(run.coordinator)
    ends, starts = first_and_last_step(run.metrics), read_starts(run)
    first, last = ends or ({}, {})
    steps = int(last["step"]) + 1 if last else 0
    total, per_epoch = _count(state.get("total_steps")), _count(state.get("steps_per_epoch"))
    outcome = run_outcome(run)
    if total is None:
        total = _count(settings.get("train.max_steps")) or (steps if outcome.word == "done" else None)
    spent = _number(report.get("seconds"))
    return ListedRun(
        path,
        outcome.word,
        begun=_text(starts[0].get("time")) if starts else _number(first.get("time")),
        steps=steps,
        total_steps=total,
        epochs=steps / per_epoch if per_epoch else None,
        total_epochs=total / per_epoch if per_epoch and total else _number(settings.get("train.epochs")),
        images_per_second=_number(report.get("images_per_second")) or _number(last.get("images_per_second")),
        seconds=last["time"] - first["time"] if spent is None and last else spent,
        best=_best([*_probed(report), *_evaluated(run), *_online(last)]),
        settings=settings,
        start=starts[-1] if starts else {},
    )


def _settings(run: RunDir) -> dict[str, Any]:
    """Each section is parsed once for all runs that have the same, as those of a sweep do."""
    text = read_whole(run.config, MAX_BYTES, run.path).decode("utf-8")
    values: dict[str, Any] = {}
    for section in re.split(r"^(?=[A-Za-z_])", text, flags=re.MULTILINE):
        if section.strip():
            values |= _parsed(section)
    return flatten(values)


@lru_cache(maxsize=4096)
def _parsed(section: str) -> dict[str, Any]:
    return values_without_secrets(parse_values(section))


def _probed(report: dict[str, Any]) -> Iterator[tuple[str, BestAccuracy]]:
    rows = report.get("trained")
    for block, row in enumerate(rows if isinstance(rows, list) else (), 1):
        for feature in PROBES:
            value = _number(row.get(feature)) if isinstance(row, dict) else None
            if value is not None:
                yield QUICK, BestAccuracy(value, block, feature)


def _evaluated(run: RunDir) -> Iterator[tuple[str, BestAccuracy]]:
    """Accuracies of the trained network on the run's own data set."""
    document = _object(run.path / "evaluation.json")
    data, rows = document.get("data"), document.get("results")
    if document.get("checkpoint") is not None or not isinstance(rows, list) or not isinstance(data, dict):
        return
    for row in rows:
        if not isinstance(row, dict) or row.get("metric") != "top1" or row.get("data") != data.get("name"):
            continue
        value, block, measure = _number(row.get("value")), _count(row.get("block")), _text(row.get("measure"))
        if value is not None and block is not None and measure and row.get("feature") in FEATURES:
            yield measure, BestAccuracy(value, block, row["feature"])


def _online(line: dict[str, Any]) -> Iterator[tuple[str, BestAccuracy]]:
    for stage in line.get("stages", ()):
        online = stage.get("online")
        for name in ("linear", "knn") if isinstance(online, dict) else ():
            value = _number(online.get(name))
            if value is not None:
                yield f"online/{name}", BestAccuracy(value, stage["stage"], "")


def _best(found: Iterable[tuple[str, BestAccuracy]]) -> dict[str, BestAccuracy]:
    best: dict[str, BestAccuracy] = {}
    for measure, accuracy in found:
        if measure not in best or accuracy.value > best[measure].value:
            best[measure] = accuracy
    return best


def _object(path: Path) -> dict[str, Any]:
    try:
        return read_object(path) or {}
    except (OSError, ValueError, RecursionError):
        return {}


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known and isinstance(value, int | float) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def as_text(value: object) -> str:
    """A value of a configuration in a column: text as it is, lists and sections as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
