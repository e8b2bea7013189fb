"""Tells Prometheus where runs serve their metrics: reads the folders of runs, writes a file of targets (file_sd).

    python announce.py RUNS targets/runs.json           # until it is stopped
    python announce.py RUNS targets/runs.json --once

A run that has ended well is taken off. One that failed or vanished stays for a day, so that the alert RunGone can
say so; started again, it is found at its new port. Needs nothing but Python; only reads what runs write.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

KEEP_SECONDS = 24 * 3600.0
"""How long a run that reports nothing any more, and has not ended well, stays on the list."""
WRITTEN = ("coordinator.json", "metrics.jsonl")
"""What a run writes when it begins, and at every step."""


def address(run: Path) -> str | None:
    """HOST:PORT where the run in this folder serves its metrics; None if it serves none, or nobody can say where."""
    try:
        url = json.loads((run / "coordinator.json").read_text(encoding="utf-8"))["metrics"]
        return urlsplit(url).netloc or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_of_interest(run: Path, now: float) -> bool:
    """Whether the run may still be going on, or ended otherwise than it should, not long ago."""
    try:
        written = [path.stat().st_mtime for path in run.glob("*.json*") if path.name in WRITTEN]
    except OSError:  # between two looks a run may be moved, or its files replaced
        return False
    return bool(written) and now - max(written) < KEEP_SECONDS and not (run / "report.json").exists()


def targets(runs: Path, now: float) -> list[dict[str, Any]]:
    """What Prometheus reads: one group a run, with the name of its folder as the label `run`.

    Args:
        runs: the folder that holds the folders of runs.
        now: seconds since 1970.

    Raises:
        OSError: it cannot be read.
    """
    found = ((run.name, address(run)) for run in sorted(runs.iterdir()) if is_of_interest(run, now))
    return [{"targets": [where], "labels": {"run": name}} for name, where in found if where is not None]


def write(path: Path, groups: list[dict[str, Any]]) -> bool:
    """Put the groups into the file, at once and not half, if they are others; returns whether they were.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(groups, indent=2) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # not *.json: Prometheus must not read it
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Announce until stopped; returns the exit code."""
    parser = argparse.ArgumentParser(description="Tell Prometheus where runs serve their metrics.")
    parser.add_argument("runs", type=Path, help="the folder that holds the folders of runs, such as runs")
    parser.add_argument("file", type=Path, help="what Prometheus reads, such as targets/runs.json")
    parser.add_argument("--once", action="store_true", help="write the file and end")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="how often to look (5)")
    given = parser.parse_args(arguments)
    if given.file.suffix != ".json":
        parser.error(f"{given.file}: Prometheus wants a name that ends in .json")
    if given.every <= 0:
        parser.error("--every: give seconds above 0")
    try:
        while True:
            groups = targets(given.runs, time.time())
            if write(given.file, groups):
                print(
                    f"{given.file}: " + (", ".join(group["labels"]["run"] for group in groups) or "no run"), flush=True
                )
            if given.once:
                return 0
            time.sleep(given.every)
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
