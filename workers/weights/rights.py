"""Takes the rights from a process: network, files, new processes, memory and time without limit.

What can be taken depends on the machine, so each part says in words what was taken. Linux; none of it needs root.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import suppress
from typing import Any

NEW_USER, NEW_NET = 0x10000000, 0x40000000
"""CLONE_NEWUSER and CLONE_NEWNET of <linux/sched.h>."""
SET_NO_NEW_PRIVILEGES, SET_DUMPABLE = 38, 4
"""PR_SET_NO_NEW_PRIVS and PR_SET_DUMPABLE of <linux/prctl.h>."""
REFUSED = (
    "open", "os.", "socket.", "subprocess.", "ctypes.", "shutil.", "tempfile.", "pty.", "mmap.", "signal.", "fcntl.",
    "import", "exec", "compile",
)  # fmt: skip
"""Beginnings of the names of Python's audit events that are refused: whatever reaches out of the process."""
CPU_SECONDS = 600


def leave_network() -> list[str]:
    """Enter a user and a network namespace of its own, where the system lets one; what was done, in words.

    To be called before anything that starts threads is imported: a process with threads may not do so.
    """
    library = ctypes.CDLL(None, use_errno=True)
    taken = []
    if library.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
        taken.append("no new privileges")
    library.prctl(SET_DUMPABLE, 0, 0, 0, 0)
    if any(library.unshare(flags) == 0 for flags in (NEW_USER | NEW_NET, NEW_NET)):
        taken.append("a network namespace without any network")
    return taken


def give_up_rights(output_bytes: int, memory_bytes: int) -> list[str]:
    """Leave this process nothing but what it has open, and bounds; what was done, in words.

    Args:
        output_bytes: the most that it may write to a file.
        memory_bytes: that it may allocate beyond what it has.
    """
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 0,  # what is open stays open; nothing else can be opened, nor a socket made
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_FSIZE: output_bytes,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_AS: _mapped_bytes() + memory_bytes,
    }
    for kind, limit in limits.items():
        _, hard = resource.getrlimit(kind)
        bounded = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (bounded, bounded))
    sys.addaudithook(_refuse)
    return ["no further file or socket", "bounded memory, output and time"]


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(REFUSED):
        raise PermissionError(f"{event}: this process may not")


def _mapped_bytes() -> int:
    """Address space in use."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
