"""Continuing a run that was stopped: whether the directory holds the same run, and from which snapshot."""

from __future__ import annotations

import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from launch.failure import read_failure
from launch.prepare.config_differences import deciding_differences
from launch.prepare.initial_weights import with_digests
from launch.prepare.longer import LENGTH, why_not_longer
from launch.prepare.recompute import as_before
from launch.prepare.run_dir import read_config, write_config
from launch.prepare.run_lock import REMEDY
from pipeline.config import Config
from pipeline.errors import ConfigError, UserError
from workers.observing.amounts import finite
from workers.observing.goodput import Goodput, write_start
from workers.observing.history_file import drop_damage, drop_steps
from workers.observing.repeated_steps import keep_digests
from workers.run.files import TO_BE_MEASURED, RunDir, final_digest, read_report, relative_to_cwd, step_numbers
from workers.run.no_kernel import no_promise
from workers.snapshots.bits import bits_note
from workers.snapshots.manifest import MANIFEST, check_files, read_manifest

SHOWN = 5
"""Differences between two configurations that a message names."""


@dataclass(frozen=True)
class ResumePoint:
    """How far a run has been trained.

    Args:
        steps: already trained, from which to continue; 0 starts over.
        finished: the run has been trained to its end.
        unmeasured: it was ended while its blocks were measured, which is all that is left to do.
        notes: sentences for the user.
    """

    steps: int = 0
    finished: bool = False
    unmeasured: bool = False
    notes: tuple[str, ...] = ()


def earlier_run(config: Config, run: RunDir) -> Config | None:
    """The configuration of the run that is in the directory; None if there is none. No snapshot is read.

    Raises:
        ConfigError: `config` may not continue it.
    """
    return check_same_run(config, run) if _is_run(run) else None


def check_same_run(config: Config, run: RunDir) -> Config:
    """The configuration of the run that is in the directory; raises as `earlier_run`, also if there is none."""
    try:
        earlier = read_config(run.path)
    except UserError as error:
        raise ConfigError("run_dir", f"'{run.path}' holds a run that cannot be read ({error})", REMEDY) from None
    changed = deciding_differences(earlier, with_digests(as_before(config, earlier), earlier))
    if changed and (why := why_not_longer(config, earlier, changed)):
        named = "; ".join([*changed.values()][:SHOWN])
        more = f" (and {len(changed) - SHOWN} more)" if len(changed) > SHOWN else ""
        problem = f"'{run.path}' already holds a run with another configuration: {named}{more}"
        raise ConfigError("run_dir", problem, _what_can_be_done(run.path, set(changed), why))
    return earlier


def _is_run(run: RunDir) -> bool:
    """Whether there is one. One that was refused for its configuration before its first step may be replaced."""
    if not run.config.is_file():
        return False
    failure = read_failure(run)
    refused = failure is not None and failure.get("kind") == "bad_input"
    return not refused or bool(step_numbers(run)) or (run.metrics.is_file() and run.metrics.stat().st_size > 0)


def check_resumable(path: Path) -> None:
    """Raises `UserError` if `path` holds no run; it lists those nearby that can be gone on with."""
    if RunDir(path).config.is_file():
        return
    above = [path, path.parent, Path("runs")]
    runs = sorted({run for folder in above for run in folder.glob("*/") if step_numbers(RunDir(run))})
    problem = "is not a run" if path.exists() else "does not exist"
    nearby = f"These have snapshots: {', '.join(map(str, runs[:10]))}" if runs else "No run with snapshots is near it"
    raise UserError(f"'{path}' {problem}. {nearby}")


def find_resume_point(run: RunDir, longer: bool = False) -> ResumePoint:
    """From where the run can be continued; changes nothing. Reads every file of the newest snapshot.

    Args:
        run: its directory.
        longer: it is to be trained longer than was planned, so that its end is none.

    Raises:
        UserError: it has ended and is to be trained longer, and has no snapshot to go on from.
    """
    report = read_report(run) or {}
    if longer and "final_digest" in report:
        return _beyond_its_end(run)
    if "final_digest" in report and TO_BE_MEASURED not in report:
        return ResumePoint(finished=True, notes=(f"the run in {run.path} has been trained to its end: nothing to do",))
    if "final_digest" in report and report["final_digest"] == final_digest(run):
        note = f"the run in {run.path} has been trained to its end; what is left is to measure it"
        return ResumePoint(finished=True, unmeasured=True, notes=(note,))
    return _newest_snapshot(run)


def _beyond_its_end(run: RunDir) -> ResumePoint:
    point = _newest_snapshot(run)
    if not point.steps:
        problem = f"'{run.path}' has been trained to its end and has no snapshot to go on from"
        raise UserError(f"{problem}. Begin another run with its weights: init_from={relative_to_cwd(run.path)}")
    return point


def _newest_snapshot(run: RunDir) -> ResumePoint:
    notes = []
    for steps in reversed(step_numbers(run)):
        folder = run.snapshot(steps)
        if not (folder / MANIFEST).exists():  # it was being written when the run stopped
            continue
        try:
            manifest = read_manifest(folder)
            check_files(folder, manifest)
        except UserError as error:
            notes.append(f"snapshot after {steps} steps passed over: {error}")
            continue
        notes.append(f"going on from the snapshot after {steps} steps")
        earlier = read_config(run.path)
        notes += [note for note in (bits_note(earlier, manifest.bits), no_promise(earlier)) if note is not None]
        return ResumePoint(steps, notes=tuple(notes))
    return ResumePoint(notes=(*notes, "no snapshot to go on from: starting over"))


def roll_back(config: Config, run: RunDir, steps: int, *, began: float | None = None, restarted: bool = False) -> None:
    """Remove what was written after so many steps, but for the events and the time it took; write the configuration.

    Args:
        config: with which it continues.
        run: the directory.
        steps: after which there is a snapshot; 0 starts over.
        began: when the next attempt did, in seconds since 1970; None: now.
        restarted: by what had started the one before, which has failed; otherwise nobody ran it in between.

    Raises:
        ConfigError: it cannot be written.
    """
    goodput, failure = Goodput.of(run), read_failure(run) or {}
    try:
        run.failure.unlink(missing_ok=True)
        run.report.unlink(missing_ok=True)  # of weights that are not what it says
        shutil.rmtree(run.final, ignore_errors=True)
        for later in step_numbers(run):
            if later > steps:
                shutil.rmtree(run.snapshot(later))
        keep_digests(run, steps)
        drop_steps(run.metrics, steps, goodput.written)
        drop_damage(run.events, goodput.event)
        goodput.alive(finite(failure.get("time")) or 0.0)
        restarted = restarted and failure.get("kind") != "interrupted"
        write_start(run, goodput.next_start(time.time() if began is None else began, restarted))
        write_config(run, config)
    except OSError as error:
        raise ConfigError("run_dir", f"'{run.path}' cannot be written ({error.strerror})", REMEDY) from None


def _what_can_be_done(path: Path, keys: set[str], why: str) -> str:
    whole = f"'onward resume {shlex.quote(str(relative_to_cwd(path)))}' goes on with it as it was begun"
    if keys <= set(LENGTH):
        return f"{why}. Anything else is another run, in another run_dir=FOLDER; {whole}"
    return (
        f"{REMEDY}, or the same values; {whole}. Only what leaves the numbers alone may change: where and how it is "
        "computed (device, runtime, link.kind, replicas, processes, data.workers, ...), what is watched and kept "
        "(metrics, snapshots, evaluation, ...)"
    )
