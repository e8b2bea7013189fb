"""Tells Prometheus where runs serve their metrics: reads the folders of runs, writes a file of targets (file_sd).

    python announce.py RUNS targets/runs.json           # until it is stopped
    python announce.py RUNS targets/runs.json --once

A run that has ended well, or was stopped by its user, is taken off. One that failed or vanished stays for a day, so
that the alert RunGone can say so; started again, it is found at its new port. Where another run has got its port since
it is taken off too, or Prometheus would take the one for the other.

Needs nothing but Python; only reads what runs write.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

KEEP_SECONDS = 24 * 3600.0
"""How long a run that reports nothing any more, and has not ended well, stays on the list."""
WRITTEN = ("coordinator.json", "metrics.jsonl")
"""What a run writes when it begins, and at every step."""
MAX_BYTES = 1 << 20
"""Of a file that is read."""
MOST_SECONDS = 3600.0
"""From one look to the next."""


def address(run: Path) -> str | None:
    """HOST:PORT where the run in this folder serves its metrics; None if it serves none, or nobody can say where."""
    try:
        url = read(run / "coordinator.json")["metrics"]
        return urlsplit(url).netloc or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def read(path: Path) -> Any:
    """The JSON in a file of a run, which may be another user's: an ordinary file of bounded size, and no link.

    Raises:
        OSError, ValueError: it is none, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"'{path}' is no ordinary file")
        return json.loads(file.read(MAX_BYTES))


def is_of_interest(run: Path, now: float) -> bool:
    """Whether the run may still be going on, or ended otherwise than it should, not long ago."""
    try:
        written = [path.stat().st_mtime for path in run.glob("*.json*") if path.name in WRITTEN]
        ended_well = (run / "report.json").exists()
    except OSError:  # between two looks a run may be moved, or its files replaced
        return False
    return bool(written) and now - max(written) < KEEP_SECONDS and not ended_well and not was_stopped(run)


def was_stopped(run: Path) -> bool:
    """Whether somebody asked the run to stop, and it did."""
    try:
        failure = read(run / "failure.json")
        return bool(failure["kind"] == "interrupted")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def began(run: Path) -> float:
    """When the run wrote down where it serves its metrics, in seconds since 1970; 0 if that is gone."""
    try:
        return (run / "coordinator.json").stat().st_mtime
    except OSError:
        return 0.0


def targets(runs: Path, now: float) -> list[dict[str, Any]]:
    """What Prometheus reads: one group a run, with the name of its folder as the label `run`.

    Args:
        runs: the folder that holds the folders of runs.
        now: seconds since 1970.

    Raises:
        OSError: it cannot be read.
    """
    newest: dict[str, str] = {}
    for run in sorted((run for run in runs.iterdir() if is_of_interest(run, now)), key=began):
        if (where := address(run)) is not None:
            newest[where] = run.name
    named = sorted((name, where) for where, name in newest.items())
    return [{"targets": [where], "labels": {"run": name}} for name, where in named]


def write(path: Path, groups: list[dict[str, Any]]) -> bool:
    """Put the groups into the file, at once and not half, if they are others; returns whether they were.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(groups, indent=2) + "\n"
    if path.exists() and path.read_bytes() == text.encode():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # not *.json: Prometheus must not read it
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return True


def announce(runs: Path, file: Path) -> None:
    """Look once, and say what has changed. Raises `OSError`."""
    groups = targets(runs, time.time())
    if write(file, groups):
        named = ", ".join(group["labels"]["run"] for group in groups) or "no run"
        print(f"{file}: " + "".join(sign if sign.isprintable() else "?" for sign in named), flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the user has asked for; exits with 2 at a mistake."""
    parser = argparse.ArgumentParser(description="Tell Prometheus where runs serve their metrics.")
    parser.add_argument("runs", type=Path, help="the folder that holds the folders of runs, such as runs")
    parser.add_argument("file", type=Path, help="what Prometheus reads, such as targets/runs.json")
    parser.add_argument("--once", action="store_true", help="write the file and end")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="how often to look (5)")
    given = parser.parse_args(arguments)
    if given.file.suffix != ".json":
        parser.error(f"{given.file}: Prometheus wants a name that ends in .json")
    if not 0 < given.every <= MOST_SECONDS:
        parser.error(f"--every: give seconds above 0, {MOST_SECONDS:g} at most")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Announce until stopped; returns the exit code."""
    given, looked, trouble = parsed(arguments), False, ""
    try:
        while True:
            try:
                announce(given.runs, given.file)
                looked, trouble = True, ""
            except OSError as error:
                before, trouble = trouble, f"{error.filename or given.file}: {error.strerror}"
                if not looked:
                    print(f"error: {trouble}. Give the folder of the runs, and a file to write", file=sys.stderr)
                    return 2
                # The folder may be on another host that does not answer: it will come back.
                if trouble != before:
                    print(f"{trouble}; looking again every {given.every:g} s", file=sys.stderr, flush=True)
            if given.once:
                return 0
            time.sleep(given.every)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
