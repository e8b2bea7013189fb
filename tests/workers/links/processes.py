"""What tests look at of processes of their own: whether they live or sleep, and whether their memory has a name."""

from __future__ import annotations

import os
from pathlib import Path

SHARED_MEMORY = "/dev/shm/"


def state_of(pid: int) -> str:
    """Of its main thread, as `ps` shows it: R runs, S sleeps, T is stopped, Z has ended; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    return state_of(pid) not in ("", "Z")


def named_memory(pid: int) -> set[str]:
    """Files of shared memory that the process has open or mapped and that others can see: they might be left behind."""
    process = Path(f"/proc/{pid}")
    found = {line.split(maxsplit=5)[-1] for line in (process / "maps").read_text().splitlines()}
    for descriptor in (process / "fd").iterdir():
        try:
            found.add(os.readlink(descriptor))
        except FileNotFoundError:  # closed meanwhile
            continue
    return {name for name in found if name.startswith(SHARED_MEMORY) and os.path.exists(name)}
