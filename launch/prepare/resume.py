"""Going on with a run that was stopped: whether the folder holds the same run, and from which snapshot.

What decides the numbers must be the same; how they are computed may differ: the runtime, the link, the devices.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.failure import read_failure
from launch.prepare.data_index import keep_index, make_index
from launch.prepare.run_dir import begin_run, read_config, write_config
from pipeline.config import Config
from pipeline.config.secrets import without_secrets
from pipeline.errors import ConfigError, UserError
from pipeline.ordinary_files import open_to_read
from pipeline.validation.pydantic_errors import shown
from workers.control.validation import MalformedMessage
from workers.observing.history_file import MAX_LINE
from workers.observing.observer import Event
from workers.run.files import TO_BE_MEASURED, RunDir, final_digest, from_here, read_report, step_numbers, write_parts
from workers.snapshots.bits import bits_note
from workers.snapshots.manifest import MANIFEST, check_files, read_manifest

FREE = (
    "run_dir", "runtime", "device", "replicas", "processes", "restart", "max_restarts", "hang_timeout", "faults",
    "signals", "link.kind", "link.depth", "link.timeout", "metrics", "alarms", "trace", "trackers", "snapshots",
    "evaluation", "engine.shard_optimizer", "train.max_skipped", "data.workers", "data.root", "data.download",
    "data.feed", "data.in_memory", "data.affinity", "data.on_error", "data.scan_headers", "determinism",
)  # fmt: skip
"""What may differ from the run that is continued."""
LENGTH = ("train.epochs", "train.max_steps")


@dataclass(frozen=True)
class Opened:
    """A run directory: what has been trained in it.

    Args:
        path: of the run.
        steps: already trained, to go on from; 0 starts over.
        finished: the run has been trained to its end.
        unmeasured: it was ended while its blocks were measured, which is all that is left to do.
        notes: sentences for the user.
    """

    path: Path
    steps: int = 0
    finished: bool = False
    unmeasured: bool = False
    notes: tuple[str, ...] = ()


def open_run(config: Config, path: Path) -> Opened:
    """Begin the run in the directory `path`, which must be claimed, or take up the run that is in it.

    Raises:
        ConfigError: the directory cannot be used; then nothing was changed.
        UserError: the training set cannot be read.
    """
    if not _is_run(RunDir(path)):
        index, notes = make_index(config)
        RunDir(path).failure.unlink(missing_ok=True)
        begin_run(config, path)
        keep_index(index, RunDir(path))
        return Opened(path, notes=tuple(notes))
    found = inspect(config, path)
    if not found.finished:
        prepare(config, found)
        if not RunDir(path).data_index.is_file():
            keep_index(make_index(config)[0], RunDir(path))
    return found


def existing_run(config: Config, claimed: Path | None = None) -> Path | None:
    """The directory that was claimed, or that of `config`, if it holds a run."""
    path = Path(config.run_dir) if claimed is None and config.run_dir is not None else claimed
    return path if path is not None and _is_run(RunDir(path)) else None


def _is_run(run: RunDir) -> bool:
    """Whether there is one: what was refused before its first step, for its configuration, may have another."""
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
    there = "is not a run" if path.exists() else "does not exist"
    found = f"These have snapshots: {', '.join(map(str, runs[:10]))}" if runs else "No run with snapshots is near it"
    raise UserError(f"'{path}' {there}. {found}")


def check_run(config: Config, path: Path) -> None:
    """Whether `config` may go on with the run in `path`, without a look at its snapshots.

    Raises:
        ConfigError: another run.
    """
    try:
        earlier = read_config(path)
    except UserError as error:
        raise ConfigError("run_dir", f"'{path}' holds a run that cannot be read ({error})", _OTHER) from None
    differences = compare(earlier, config)
    if differences:
        problem = f"'{path}' already holds a run with another configuration: {'; '.join(differences[:5])}"
        more = f" (and {len(differences) - 5} more)" if len(differences) > 5 else ""
        changes = set(_changes(earlier, config, _free_for(earlier)))
        raise ConfigError("run_dir", problem + more, _what_can_be_done(path, changes))


def inspect(config: Config, path: Path) -> Opened:
    """What `config` could go on from in the run directory `path`; changes nothing.

    Reads every file of the newest snapshot. Raises `ConfigError` as `check_run`.
    """
    check_run(config, path)
    run = RunDir(path)
    report = read_report(run) or {}
    if "final_digest" in report and TO_BE_MEASURED not in report:
        return Opened(path, finished=True, notes=(f"the run in {path} has been trained to its end: nothing to do",))
    if "final_digest" in report and report["final_digest"] == final_digest(run):
        note = f"the run in {path} has been trained to its end; what is left is to measure it"
        return Opened(path, finished=True, unmeasured=True, notes=(note,))
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
        if (other_bits := bits_note(config, manifest.bits)) is not None:
            notes.append(other_bits)
        return Opened(path, steps, notes=tuple(notes))
    return Opened(path, notes=(*notes, "no snapshot to go on from: starting over"))


def prepare(config: Config, found: Opened) -> None:
    """Make the run directory ready to be written to again: what lies after the snapshot goes.

    Raises:
        ConfigError: it cannot be written.
    """
    run = RunDir(found.path)
    try:
        run.failure.unlink(missing_ok=True)
        run.coordinator.unlink(missing_ok=True)
        run.report.unlink(missing_ok=True)  # of weights that are not what it says
        shutil.rmtree(run.final, ignore_errors=True)
        for steps in step_numbers(run):
            if steps > found.steps:
                shutil.rmtree(run.snapshot(steps))
        _keep_lines(run.metrics, lambda line: _before(line, found.steps))
        _keep_lines(run.events, _whole)
        write_config(run, config)
    except OSError as error:
        raise ConfigError("run_dir", f"'{found.path}' cannot be written ({error.strerror})", _OTHER) from None


def compare(earlier: Config, config: Config) -> list[str]:
    """What decides the numbers and differs, as `key is earlier there, now here`."""
    return differences(earlier, config, _free_for(earlier))


def differences(there: Config, here: Config, free: Callable[[str], bool] = lambda key: key == "run_dir") -> list[str]:
    """What two configurations differ in, as `key is A there, B here`, but for keys that are `free`."""
    before, after = (_flat(without_secrets(c)) for c in (there, here))
    keys = _changes(there, here, free)
    return [f"{key} is {shown(before.get(key))} there, {shown(after.get(key))} here" for key in keys]


def _changes(there: Config, here: Config, free: Callable[[str], bool]) -> list[str]:
    before, after = (_flat(c.model_dump(mode="json")) for c in (there, here))
    return [key for key in {**before, **after} if before.get(key) != after.get(key) and not free(key)]


_OTHER = "Give another run_dir=FOLDER"


def _what_can_be_done(path: Path, keys: set[str]) -> str:
    whole = f"'onward resume {shlex.quote(str(from_here(path)))}' goes on with it as it was begun"
    if keys <= set(LENGTH):
        return (
            "A run keeps its length, for its learning rates fall towards its end: more epochs are another run, in "
            f"another run_dir=FOLDER; {whole}"
        )
    return f"{_OTHER}, or the same values; {whole}. {_MAY_CHANGE}"


_MAY_CHANGE = (
    "Only what leaves the numbers alone may change: where and how it is computed (device, runtime, link.kind, "
    "replicas, processes, data.workers, ...), what is watched and kept (metrics, snapshots, evaluation, ...)"
)


def _free_for(config: Config) -> Callable[[str], bool]:
    """Computing again gives the same bits, except in compiled code."""
    compiled = any(config.stage(index).precision.compile for index in range(1, config.num_stages + 1))
    return lambda key: _free(key) or ("memory" in key.split(".") and not compiled)


def _free(key: str) -> bool:
    parts = key.split(".")
    if parts[0] == "stages" and parts[2:] in (["device"], ["replicas"], ["engine", "shard_optimizer"]):
        return True
    return any(key == free or key.startswith(free + ".") for free in FREE)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _keep_lines(path: Path, wanted: Callable[[str], bool]) -> None:
    """Leave only those; a long run has gigabytes of lines, which are never in memory together."""
    if path.is_file():
        with open_to_read(path, path.parent) as file:
            pieces = iter(lambda: file.readline(MAX_LINE), b"")
            lines = (line.decode("utf-8", errors="replace").removesuffix("\n") for line in pieces)
            write_parts(path, (f"{line}\n".encode() for line in lines if wanted(line)))


def _whole(line: str) -> bool:
    """Whether a line of the events can be read; all that have happened are kept."""
    try:
        Event.from_json(json.loads(line))
    except (ValueError, RecursionError, MalformedMessage):
        return False
    return True


def _before(line: str, steps: int) -> bool:
    """Whether a line of the metrics is of a step before this one; the last line may have been cut short."""
    try:
        return int(json.loads(line)["step"]) < steps
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return False
