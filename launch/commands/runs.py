"""`onward runs FOLDER`: all runs in a folder, one line each: state, length, speed, best numbers, and what differs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launch.prepare.config_differences import differing_keys, is_free
from launch.results.grid import Grid
from launch.results.listed_run import QUICK, ListedRun, as_text, read_listed, run_folders
from launch.results.measure_names import clean, measure_words
from launch.results.printing import print_grid, print_lines
from launch.results.result_files import write_rows
from pipeline.errors import UserError, allowed_names
from workers.observing.terminal.console import Console
from workers.observing.terminal.step_format import clock
from workers.run.files import RunDir

CSV_COLUMNS = (
    "run", "path", "state", "begun", "host", "commit", "steps", "total_steps", "epochs", "total_epochs",
    "images_per_second", "seconds",
)  # fmt: skip
"""First columns of the CSV. Three for each measure follow, then one for each key that differs."""
MOST_KEYS, MOST_LETTERS = 6, 24
"""Keys that the table shows, and how much of a value; the CSV has all."""
DETAILS = ("few_labels", "corruption", "mlp")
"""Families of measures that only the CSV has."""
DESCENDING = ("images_per_second", "steps", "epochs")
"""Columns that `--sort` shows largest first, as it does accuracies."""

Value = str | float | None


def list_runs(folder: Path, csv: Path | None, sort: str, console: Console) -> None:
    """Print the runs in a folder, and what in it is none; `folder` may be a run itself.

    Args:
        folder: of which every folder is looked at; no deeper.
        csv: also written, with every number and key; None: nowhere.
        sort: `begun`, another column, a measure or a key.
        console: for the table.

    Raises:
        UserError: no such folder, no run in it, no such column, or the CSV cannot be written.
    """
    runs, others = _read_all(folder)
    if not runs:
        more = f": {'; '.join(others[:3])}" if others else ""
        raise UserError(f"'{folder}' holds no run{more}. Give the folder of runs, such as runs/")
    keys = differing_keys([run.settings for run in runs], of_numbers=False)
    named = dict.fromkeys(measure for run in runs for measure in run.best)
    measures = sorted(named, key=lambda measure: (measure.startswith("online/"), measure != QUICK))
    runs = _sorted(runs, sort, measures, keys)
    if csv is not None:
        write_rows(csv, csv_columns(measures, keys), (_csv_row(run, measures, keys) for run in runs))
    wanted = [key for key in keys if not is_free(key)]
    print_grid(
        console, _grid(folder, runs, [m for m in measures if m.split("/")[0] not in DETAILS], wanted[:MOST_KEYS])
    )
    hidden = len(keys) - len(wanted[:MOST_KEYS])
    if hidden:
        print_lines(console, f"{hidden} more keys differ: --csv FILE has all")
    print_lines(console, *others)


def csv_columns(measures: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    """The columns of the CSV: for each measure its best value, the block and the feature that has it."""
    of_measures = (f"{measure}{what}" for measure in measures for what in ("", " block", " feature"))
    return (*CSV_COLUMNS, *of_measures, *keys)


def _read_all(folder: Path) -> tuple[list[ListedRun], list[str]]:
    """The runs, and a sentence for every folder that is none or cannot be read."""
    runs: list[ListedRun] = []
    others: list[str] = []
    for path in run_folders(folder):
        if not os.access(path, os.R_OK | os.X_OK):
            others.append(f"{clean(path.name)}: you may not read it")
        elif not RunDir(path).config.is_file():
            kept = "only logs of a run that another host keeps" if RunDir(path).elsewhere.is_file() else "no run"
            others.append(f"{clean(path.name)}: {kept} (it has no config.yaml)")
        else:
            try:
                runs.append(read_listed(path))
            except (OSError, ValueError, RecursionError) as error:
                reason = (error.strerror if isinstance(error, OSError) else None) or error
                others.append(f"{clean(path.name)}: cannot be read ({clean(str(reason))})")
    return runs, others


def _sorted(runs: list[ListedRun], sort: str, measures: Sequence[str], keys: Sequence[str]) -> list[ListedRun]:
    """Those without the value come last; equal ones by name."""
    columns = ("run", "state", "begun", "steps", "epochs", "images_per_second", "seconds")
    if sort not in (*columns, *measures) and not any(sort in run.settings for run in runs):
        allowed = allowed_names(clean(sort), (*columns, *measures, *keys))
        raise UserError(f"--sort: '{clean(sort)}' is no column. {allowed}")
    value: Callable[[ListedRun], Any] = lambda run: _value(run, sort)  # noqa: E731
    known = [run for run in runs if value(run) is not None]
    numbers = all(isinstance(value(run), int | float) and not isinstance(value(run), bool) for run in known)
    known.sort(key=lambda run: run.path.name)
    known.sort(key=lambda run: value(run) if numbers else as_text(value(run)), reverse=sort in (*DESCENDING, *measures))
    return [*known, *(run for run in runs if value(run) is None)]


def _value(run: ListedRun, name: str) -> Any:
    if name == "run":
        return run.path.name
    if name == "begun":
        return _seconds_of(run.begun)
    if name in ("state", "steps", "epochs", "images_per_second", "seconds"):
        return getattr(run, name)
    return run.best[name].value if name in run.best else run.settings.get(name)


def _seconds_of(begun: str | float | None) -> float | None:
    try:
        return datetime.fromisoformat(begun).timestamp() if isinstance(begun, str) else begun
    except (ValueError, OverflowError, OSError):
        return None


def _grid(folder: Path, runs: Sequence[ListedRun], measures: Sequence[str], keys: Sequence[str]) -> Grid:
    head: list[tuple[str, ...]] = [("run",), ("state",), ("steps",), ("epochs",), ("images/s",), ("time",)]
    head += [("best, % (block)", " ".join(measure_words(measure))) for measure in measures]
    head += [tuple(clean(key).split(".")) for key in keys]
    rows = [
        (
            clean(run.path.name),
            run.state,
            _of(run.steps, run.total_steps),
            "-" if run.epochs is None else _of(run.epochs, run.total_epochs),
            "-" if run.images_per_second is None else f"{run.images_per_second:.0f}",
            "-" if run.seconds is None else clock(run.seconds),
            *(_best(run, measure) for measure in measures),
            *(_short(run.settings[key]) if key in run.settings else "-" for key in keys),
        )
        for run in runs
    ]
    return Grid(f"{len(runs)} run{'s' * (len(runs) != 1)} in {clean(str(folder))}", tuple(head), tuple(rows))


def _of(done: float, whole: float | None) -> str:
    return f"{round(done, 1):g}/{'?' if whole is None else f'{round(whole, 1):g}'}"


def _best(run: ListedRun, measure: str) -> str:
    found = run.best.get(measure)
    if found is None:
        return "-"
    return f"{100 * found.value:.1f} ({' '.join(filter(None, (str(found.block), found.feature)))})"


def _short(value: object) -> str:
    text = clean(as_text(value))
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"


def _csv_row(run: ListedRun, measures: Sequence[str], keys: Sequence[str]) -> list[Value]:
    seconds = _seconds_of(run.begun)
    begun = None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    commits = run.start.get("commits")
    named = (
        [commit.get("commit") for commit in commits if isinstance(commit, dict)] if isinstance(commits, list) else []
    )
    row: list[Value] = [run.path.name, str(run.path), run.state, begun, run.start.get("host")]
    row += [str(named[0]) if named else None, run.steps, run.total_steps, run.epochs, run.total_epochs]
    row += [run.images_per_second, run.seconds]
    for measure in measures:
        found = run.best.get(measure)
        row += [None] * 3 if found is None else [found.value, found.block, found.feature]
    return row + [as_text(run.settings[key]) if key in run.settings else None for key in keys]
