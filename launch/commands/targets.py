"""`onward targets FOLDER FILE`: tells Prometheus where the runs in a folder serve their metrics (file_sd)."""

from __future__ import annotations

import json
import time
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from launch.errors import in_a_sentence, print_error
from launch.prepare.provenance import read_starts
from launch.results.listed_run import run_folders
from launch.results.measure_names import clean
from launch.results.run_state import run_outcome
from pipeline.errors import UserError
from pipeline.ordinary_files import open_to_read
from workers.observing.terminal.verbosity import say
from workers.run.files import RunDir, read_object, write_text

KEEP_SECONDS = 24 * 3600.0
"""How long a run stays on the list that has failed or vanished, so that an alert can say so."""
MOST_SECONDS = 3600.0
"""From one look to the next."""


@dataclass(frozen=True)
class ScrapeTarget:
    """A run that Prometheus reads.

    Args:
        run: its directory.
        address: HOST:PORT at which it serves its metrics.
        since: when it wrote that, in seconds since 1970.
        host: on which its coordinator is, where that is known.
    """

    run: Path
    address: str
    _: KW_ONLY
    since: float
    host: str | None

    def to_json(self) -> dict[str, Any]:
        """As Prometheus reads it: one group, with labels that tell runs apart."""
        labels = {"run": clean(self.run.name), "folder": clean(str(self.run.parent))}
        return {"targets": [self.address], "labels": labels | ({"host": clean(self.host)} if self.host else {})}


def write_targets(folder: Path, file: Path, once: bool, every: float) -> None:
    """Write the file, and again whenever it changes, until interrupted; prints the runs in it each time.

    What cannot be read after the first look will come back: the folder may be on another host.

    Args:
        folder: of which every folder is looked at; no deeper.
        file: that Prometheus reads.
        once: only look once.
        every: seconds from one look to the next.

    Raises:
        UserError: a bad argument, or the folder cannot be read.
        OSError: the file cannot be written.
    """
    if file.suffix != ".json":
        raise UserError(f"FILE: Prometheus reads JSON from files that end in .json, and '{file}' does not")
    if not 0 < every <= MOST_SECONDS:
        raise UserError(f"--every: give seconds above 0, {MOST_SECONDS:g} at most, got {every:g}")
    _look(folder, file)
    problem = ""
    while not once:
        try:
            time.sleep(every)
            _look(folder, file)
            problem = ""
        except KeyboardInterrupt:
            return
        except (OSError, UserError) as error:
            before, problem = problem, in_a_sentence(error)
            if problem != before:
                print_error(f"{problem}. Looking again every {every:g} s")


def targets_in(folder: Path, now: float) -> list[ScrapeTarget]:
    """The runs in a folder that serve metrics, by name: all that are running, and those that are missed.

    A run that was trained to its end or stopped by its user is not missed. Of two runs at one address only the later
    counts, or Prometheus would take it for the other.

    Args:
        folder: of the runs.
        now: seconds since 1970.

    Raises:
        UserError: it cannot be read.
    """
    newest: dict[str, ScrapeTarget] = {}
    for target in sorted(filter(None, map(_target, run_folders(folder))), key=lambda target: target.since):
        if _is_expected(RunDir(target.run), now):
            newest[target.address] = target
    return sorted(newest.values(), key=lambda target: target.run.name)


def _target(path: Path) -> ScrapeTarget | None:
    """None where it serves no metrics, or nobody can say where."""
    run = RunDir(path)
    try:
        url = (read_object(run.coordinator) or {}).get("metrics")
        address = urlsplit(url).netloc if isinstance(url, str) else ""
        since = run.coordinator.stat().st_mtime
    except (OSError, ValueError):
        return None
    starts = read_starts(run)
    host = starts[-1].get("host") if starts else None
    return (
        ScrapeTarget(path.absolute(), address, since=since, host=host if isinstance(host, str) else None)
        if address
        else None
    )


def _is_expected(run: RunDir, now: float) -> bool:
    try:
        outcome = run_outcome(run).word
        written = [path.stat().st_mtime for path in (run.coordinator, run.metrics) if path.exists()]
    except OSError:  # between two looks a run may be moved
        return False
    return outcome == "running" or (outcome in ("failed", "stopped") and now - max(written, default=0.0) < KEEP_SECONDS)


def _look(folder: Path, file: Path) -> None:
    targets = targets_in(folder, time.time())
    text = json.dumps([target.to_json() for target in targets], indent=2) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    if not _holds(file, text.encode()):
        write_text(file, text)
        say(f"{file}: {', '.join(clean(target.run.name) for target in targets) or 'no run'}", important=True)


def _holds(file: Path, data: bytes) -> bool:
    try:
        with open_to_read(file, file.parent) as found:
            return found.read(len(data) + 1) == data
    except FileNotFoundError:
        return False
