"""Whether all hosts see the same run directory: each writes a small file there, and each reads that of another.

The directory itself may not be there yet; then the files are in the nearest folder above it. Rank 0 removes them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.ordinary_files import PRIVATE, open_to_write
from workers.run.environment import launcher
from workers.run.keys import KEY_VARIABLE

SEE_SECONDS = 3.0
"""How long a file that another host has written may take to be seen."""
AGAIN_SECONDS = 0.1


class FolderNotSharedError(Exception):
    """This host does not see the folder of rank 0, or may not write there; the text follows on the name of the host."""


def nearest_folder(run_dir: Path) -> tuple[Path, int]:
    """The run directory, or the nearest folder above it that exists; and how many folders that is above it."""
    folders = (run_dir, *run_dir.parents)
    return next((folder, above) for above, folder in enumerate(folders) if folder.is_dir())


def folder_above(run_dir: Path, above: int) -> Path:
    """The folder that is so many above, or the root."""
    return (run_dir, *run_dir.parents)[min(above, len(run_dir.parents))]


def check_same_end(run_dir: Path, first: Path, above: int) -> None:
    """Whether two run directories are called the same below a folder that is so many above; no folder is there yet.

    Raises:
        FolderNotSharedError: they are not.
    """
    if above and run_dir.parts[-above:] != first.parts[-above:]:
        raise FolderNotSharedError(f" was given the run directory '{run_dir}', and rank 0 '{first}': it is not shared")


def write_mark(folder: Path, token: str) -> Path:
    """Write a new file into a folder; raises `OSError`."""
    mark = folder / f".onward-{token}.{os.getpid()}.tmp"  # of a name that `clear_unfinished` removes
    with open_to_write(mark, new=True, mode=PRIVATE) as file:
        file.write(token.encode())
    return mark


def is_seen(mark: Path) -> bool:
    """Whether a file that another host has written is there; asked again for a while, as network file systems cache."""
    deadline = time.monotonic() + SEE_SECONDS
    while not mark.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(AGAIN_SECONDS)
    return True


def answer_mark(folder: Path, mark: str, token: str, writer: str) -> Path:
    """See the file of rank 0 and write one beside it; returns that.

    Args:
        folder: where it should be, on this host.
        mark: its name.
        token: names the new file.
        writer: host of rank 0.

    Raises:
        FolderNotSharedError: it is not there, or nothing can be written there.
    """
    if not folder.is_dir():
        raise FolderNotSharedError(f" has no folder '{folder}', in or below which rank 0 on {writer} keeps the run")
    if not is_seen(folder / mark):
        raise FolderNotSharedError(f" sees another folder '{folder}' than rank 0 on {writer}: it is not shared")
    try:
        return write_mark(folder, token)
    except OSError as error:
        raise FolderNotSharedError(f" cannot write in '{folder}' ({error.strerror})") from None


def remove_mark(mark: Path) -> None:
    """Remove a file, if it is there and can be removed."""
    with suppress(OSError):
        mark.unlink()


def ranks_apart(folder: Path, marks: Sequence[str], all_of_them: bool = False) -> list[int]:
    """The ranks, from 1, that do not see the folder of rank 0: those whose file is not there. Removes the files.

    Args:
        folder: of rank 0.
        marks: name of the file of each rank; empty where it has written none.
        all_of_them: every rank is to be treated so.
    """
    apart = []
    for rank, mark in enumerate(marks, 1):
        if all_of_them or not mark or not is_seen(folder / mark):
            apart.append(rank)
        if mark:
            remove_mark(folder / mark)  # before the run directory is looked at
    return apart


def who_keeps_the_run(hosts: Sequence[str], first: str, key_given: bool) -> str:
    """What follows from a run directory that is not shared, in words.

    Args:
        hosts: that do not see it.
        first: host of rank 0.
        key_given: the user names a file with a key on every host.
    """
    others = " and ".join(name for name in dict.fromkeys(hosts) if name != first) or "other processes"
    kept = f"{others} and {first} do not share the run directory: {first} keeps the run"
    if key_given:
        return kept
    return (
        f"{kept}. The key of its connections goes through {launcher()}'s store, where anybody who reaches its port can "
        f"read it: {KEY_VARIABLE}=FILE on every host is another way"
    )
