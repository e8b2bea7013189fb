"""The folder of the runs: whether it can be written and locked, and has room."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from launch.doctor.findings import Finding
from launch.prepare.run_lock import NO_LOCKS
from launch.processes.shared_folder import nearest_folder, remove_mark, write_mark
from pipeline.ordinary_files import open_lock

GIB = 2**30
LITTLE = 5 * GIB


@dataclass(frozen=True)
class FolderFacts:
    """What was found.

    Args:
        folder: the nearest one that exists.
        error: of the system, why it cannot be written; empty if it can.
        locks: `exclusive`, `none` where the file system has no locks, `broken` where two have the same at once.
        free: bytes.
    """

    folder: Path
    error: str
    locks: str
    free: int


def folder_facts(run_dir: Path) -> FolderFacts:
    """Write a file there, lock it twice, and remove it."""
    folder, _ = nearest_folder(run_dir.absolute())
    free = shutil.disk_usage(folder).free
    try:
        mark = write_mark(folder, secrets.token_hex(8))
    except OSError as error:
        return FolderFacts(folder, error.strerror or str(error), "none", free)
    try:
        return FolderFacts(folder, "", _locks(mark), free)
    finally:
        remove_mark(mark)


def _locks(mark: Path) -> str:
    first, second = open_lock(mark), open_lock(mark)
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "exclusive"
    except OSError as error:
        if error.errno in NO_LOCKS:
            return "none"
        raise
    finally:
        os.close(first)
        os.close(second)
    return "broken"


def runs_folder(facts: FolderFacts) -> Finding:
    """Whether a run may be kept there."""
    if facts.error:
        return Finding.problem(
            "runs", f"'{facts.folder}' cannot be written ({facts.error})", "Name another: run_dir=FOLDER"
        )
    text = f"'{facts.folder}' can be written and locked, {facts.free / GIB:.0f} GiB free"
    if facts.locks != "exclusive":
        text = f"'{facts.folder}' can be written, but has no locks: nothing stops a second start of the same run"
        return Finding("runs", text, "Mount it with locks (NFS: not with nolock; Lustre: with flock), or take care")
    if facts.free < LITTLE:
        return Finding("runs", text, "Snapshots may not fit: make room, or name another folder by run_dir=FOLDER")
    return Finding("runs", text)
