"""The run directory, into which a run writes everything: claimed, checked and begun before any process starts.

Two runs never share one: `launch.prepare.run_lock` holds it for one of them.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from launch.prepare.run_lock import REMEDY, Claim, claim
from pipeline.config import Config
from pipeline.config.secrets import has_secrets
from pipeline.errors import ConfigError, UserError
from pipeline.ordinary_files import PRIVATE, USUAL, make_folder
from pipeline.validation.loading import LoadOptions, dump_config, load_config
from workers.observing.goodput import AttemptStart, write_start
from workers.run.files import RunDir, read_object, step_numbers, write_text
from workers.snapshots.manifest import MANIFEST

TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
"""What `write_parts` calls a file that it has not finished."""


def check_run_dir(config: Config) -> None:
    """Whether `config.run_dir` could be created, without creating it.

    Raises:
        ConfigError: it holds something that is no run, is a file, or may not be written.
    """
    if config.run_dir is None:
        _check_writable(Path("runs"))
        return
    path = Path(config.run_dir)
    _check_writable(path)
    try:
        entries = sorted(os.listdir(path)) if path.is_dir() else []
    except OSError as error:
        raise ConfigError("run_dir", f"'{path}' cannot be read ({error.strerror})", REMEDY) from None
    if RunDir(path).elsewhere.name in entries and "config.yaml" not in entries:
        raise ConfigError("run_dir", *_kept_elsewhere(RunDir(path)))
    if entries and "config.yaml" not in entries and not _is_beginning(path, entries):
        problem = f"'{path}' is not empty (it holds '{entries[0]}') and is not a run"
        raise ConfigError("run_dir", problem, f"{REMEDY}, or empty it")


def _kept_elsewhere(run: RunDir) -> tuple[str, str]:
    """The problem of a host that has only the logs of a run, and the remedy."""
    try:
        kept = read_object(run.elsewhere) or {}
    except OSError:
        kept = {}
    host, folder = (ascii(kept.get(key))[:200] for key in ("host", "run_dir"))
    problem = f"'{run.path}' holds only logs of a run that host {host} keeps, in {folder}"
    return problem, f"Let that host be the first, which has rank 0, or {REMEDY[0].lower()}{REMEDY[1:]}"


def _is_beginning(path: Path, entries: list[str]) -> bool:
    """Whether it holds only files of a start that was killed before it had written the configuration."""
    run = RunDir(path)
    ours = {run.lock.name, run.logs.name, run.data_index.name, run.initial.name}
    others = [name for name in entries if name not in ours and not TEMPORARY.fullmatch(name)]
    return run.lock.name in entries and not others


def claim_run(config: Config, config_name: str, wait: float = 0.0) -> Claim:
    """Claim the directory of a run, before anything in it is read or changed; see `launch.prepare.run_lock`.

    Args:
        config: `config.run_dir` is used if given, else `runs/NAME-YYYYmmdd-HHMMSS`.
        config_name: NAME.
        wait: seconds in which an earlier process may release it.

    Raises:
        ConfigError: as `check_run_dir`, or another process has it; then nothing was changed.
    """
    check_run_dir(config)
    if config.run_dir is not None:
        return claim(Path(config.run_dir), wait=wait)
    while True:
        with suppress(FileExistsError):  # two runs may start within one second
            return claim(_free_name(config_name), new=True)


def begin_run(config: Config, path: Path, began: float | None = None) -> None:
    """Write what makes a claimed directory a run: `logs/`, and the resolved `config.yaml` with its `run_dir` filled in.

    Args:
        config: of the run.
        path: of its directory.
        began: when the command was given, in seconds since 1970; None: now.

    Raises:
        ConfigError: it cannot be written.
    """
    run = RunDir(path)
    check_no_links(path)
    try:
        run.provenance.unlink(missing_ok=True)  # of a start that was refused
        shutil.rmtree(run.modules, ignore_errors=True)
        make_folder(run.logs, path)
        write_config(run, config)
        write_start(run, AttemptStart(time.time() if began is None else began))
    except OSError as error:
        raise ConfigError("run_dir", f"'{path}' cannot be written ({error.strerror})", REMEDY) from None


def write_config(run: RunDir, config: Config) -> None:
    """The resolved configuration with its `run_dir` filled in, for the user alone where it may hold a secret.

    Raises:
        OSError: it cannot be written.
    """
    text = dump_config(config.model_copy(update={"run_dir": str(run.path.absolute())}))
    write_text(run.config, text, mode=PRIVATE if has_secrets(config) else USUAL)


def read_config(run: Path) -> Config:
    """The resolved configuration of the run in `run`; nothing that it names is imported.

    Raises:
        UserError: there is no run in that folder, its configuration was damaged, or something in it leads out of it.
    """
    check_own(run)
    return load_config(RunDir(run).config, (), LoadOptions(build=False, run=run))


def check_own(run: Path) -> None:
    """Raises if there is no run, or one that holds links, pipes or the like.

    A run writes and deletes files below its directory: nothing in it may lead elsewhere, or block a reader.

    Raises:
        UserError: there is none in that folder, or something in it leads out of it.
    """
    if not RunDir(run).config.is_file():
        problem = "is not a run directory: it has no config.yaml" if run.exists() else "does not exist"
        raise UserError(f"'{run}' {problem}. Give a folder that 'onward train' wrote, such as runs/NAME-DATE-TIME")
    check_no_links(run)


def check_no_links(run: Path) -> None:
    """Raises if a folder of a run that we read or write holds anything but files and folders.

    Folders that somebody else made in it, as a tracker of the user's own may, are not checked; nor are snapshots, which
    are skipped if they do not match their manifest.

    Raises:
        UserError: naming what is a link, a pipe or the like.
    """
    waiting, ours = [run], RunDir(run).folders
    for folder in waiting:
        try:
            entries = sorted(folder.iterdir())
        except FileNotFoundError:  # a snapshot of a run that is being trained
            continue
        except OSError as error:
            raise UserError(f"'{folder}' cannot be read ({error.strerror}). {REMEDY}") from None
        for path in entries:
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:  # a temporary file of a run that is being trained
                continue
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
                raise UserError(f"'{path}' is {kind}: a run holds its own files only. Replace it by what belongs there")
            if stat.S_ISDIR(mode) and (path in ours if folder == run else folder != RunDir(run).snapshots):
                waiting.append(path)


def _free_name(config_name: str) -> Path:
    """A name that is not taken: two runs may start within one second."""
    first = Path("runs") / f"{config_name}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = first, 2
    while path.exists():
        path, number = first.with_name(f"{first.name}-{number}"), number + 1
    return path


def _check_writable(path: Path) -> None:
    """The folder, or the nearest one above it that exists, must be a folder in which one may write."""
    try:
        existing = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    except ValueError:  # a null byte
        raise ConfigError("run_dir", f"{str(path)!r} is not a path", REMEDY) from None
    if not existing.is_dir():
        raise ConfigError("run_dir", f"'{existing}' is not a folder", REMEDY)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError("run_dir", f"you may not write in '{existing}'", REMEDY)


def clear_unfinished(run: RunDir) -> None:
    """Remove what killed processes were writing: temporary files, and snapshots without a manifest.

    Only to be called when no process of the run is left.
    """
    for steps in step_numbers(run):
        if not (run.snapshot(steps) / MANIFEST).exists():
            shutil.rmtree(run.snapshot(steps), ignore_errors=True)
    for path in run.path.rglob(".*.tmp"):
        if TEMPORARY.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()
