"""`make gpu`: measures the rows that a file lacks, prints the table, and judges it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

from tests.gpu.results import Results, Row, UnreadableFile, identity, judged
from tests.gpu.rows import all_rows
from tests.gpu.running import RowFailed, measured
from tests.gpu.setting import Setting
from tests.runs import ROOT

MINUTES = 2.5
"""Of a part on a GPU, after which no row is begun."""


def run(device: str, small: bool, parts: Sequence[int], out: str | None, minutes: float | None) -> int:
    """All of it; the exit code, see `tests.gpu.__main__`."""
    try:
        setting = found_setting(device, small)
        path = Path(out) if out else ROOT / "runs" / "gpu" / f"{device}{'-small' if small else ''}.json"
        results = Results(path, identity(setting))
    except (RowFailed, UnreadableFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = all_rows()
    print(f"{results.identity}\n{path}", flush=True)
    limit = 60 * (minutes if minutes is not None else inf if device == "cpu" else MINUTES * len(set(parts)))
    left_out = measure(results, [row for row in rows if row.part in parts], setting, limit, time.monotonic)
    print_table(rows, results, setting)
    if left_out:
        print(f"{left_out} rows were not begun, since {limit / 60:g} minutes are over: give the same command again")
    wrong = judged([row for row in rows if row.part in parts], results.rows)
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


def found_setting(device: str, small: bool) -> Setting:
    """Of this machine.

    Raises:
        RowFailed: there is no GPU that can be used.
    """
    if device == "cpu":
        return Setting(device, small)
    setting = Setting(device, small)
    found = measured(setting, "machine")
    if not found["gpus"]:
        raise RowFailed("torch finds no GPU here. DEVICE=cpu SMALL=1 measures tiny shapes on the CPU")
    return Setting(device, small, tuple(found["gpus"]), found["memory"])


def measure(results: Results, rows: Sequence[Row], setting: Setting, limit: float, clock: Callable[[], float]) -> int:
    """Measure those that are not there; how many were not begun, since `limit` seconds were over."""
    began, left_out = clock(), 0
    for row in rows:
        if results.has(row.name):
            continue
        if clock() - began > limit:
            left_out += 1
            continue
        print(f"part {row.part}/4  {row.name}: {row.what}", flush=True)
        results.put(row.name, measured_row(row, setting, clock))
        if error := results.rows[row.name].get("error"):
            print(f"          failed: {error}", flush=True)
    return left_out


def measured_row(row: Row, setting: Setting, clock: Callable[[], float]) -> dict[str, Any]:
    """Its values and the seconds that they took, or the cause of their absence in one line."""
    started, at = clock(), datetime.now(UTC).isoformat(timespec="seconds")
    try:
        values = row.measure(setting)
    except Exception as error:  # the other rows are measured all the same
        lines = str(error).strip().splitlines() or [type(error).__name__]
        values = {
            "error": lines[0][:300] if isinstance(error, RowFailed) else f"{type(error).__name__}: {lines[0]}"[:300]
        }
    return {**values, "part": row.part, "took_seconds": round(clock() - started, 1), "at": at}


def print_table(rows: Sequence[Row], results: Results, setting: Setting) -> None:
    """All rows, those of other parts too."""
    width = max(len(row.name) for row in rows)
    print(f"\n{'row':{width}}  {'s':>5}  result")
    for row in rows:
        found = results.rows.get(row.name)
        if found is None:
            print(f"{row.name:{width}}  {'':5}  not measured yet (part {row.part}/4)")
            continue
        lines = (
            [f"FAILED: {found['error']}"] if "error" in found else row.show(found, results.rows, setting).split("\n")
        )
        print(f"{row.name:{width}}  {found['took_seconds']:5.0f}  {lines[0]}")
        print(*(f"{'':{width}}  {'':5}  {line}" for line in lines[1:]), sep="\n", end="\n" if lines[1:] else "")
    sys.stdout.flush()
