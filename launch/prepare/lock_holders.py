"""Which processes hold a lock: as the kernel lists them, and whose open files they are."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pipeline.validation.trust import user_name

PROC = Path("/proc")
MOST = 3
"""Processes that a message names."""


def holders(lock: Path) -> list[str]:
    """Processes that hold a lock on the file, by number and user; empty where none does, or the kernel lists none.

    The process that locked the file may have ended, and others have inherited the open file: those are found among the
    processes of this user.
    """
    try:
        status = lock.lstat()
    except OSError:
        return []
    numbers = [number for number in _listed(status) if (PROC / str(number)).is_dir()]
    if _listed(status) and not numbers:
        numbers = _having_open(status)
    return [_in_words(number) for number in sorted(set(numbers))[:MOST]]


def _listed(status: os.stat_result) -> list[int]:
    """Processes that locked a file: `1: FLOCK  ADVISORY  WRITE 4711 08:01:131074 0 EOF` in `/proc/locks`."""
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = [line.split() for line in (PROC / "locks").read_text().splitlines()]
    except OSError:
        return []
    return [int(line[4]) for line in lines if len(line) > 5 and line[1] == "FLOCK" and line[5] == file]


def _having_open(status: os.stat_result) -> list[int]:
    numbers = []
    for process in PROC.iterdir():
        with suppress(OSError):
            if process.name.isdigit() and any(_is_same(opened, status) for opened in (process / "fd").iterdir()):
                numbers.append(int(process.name))
    return numbers


def _is_same(descriptor: Path, status: os.stat_result) -> bool:
    with suppress(OSError):
        return os.path.samestat(descriptor.stat(), status)
    return False


def _in_words(number: int) -> str:
    with suppress(OSError):
        return f"process {number} of {user_name((PROC / str(number)).stat().st_uid)}"
    return f"process {number}"
