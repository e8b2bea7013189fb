"""What the threads of a process are doing, written to its log when it or a neighbour of it hangs.

A thread of the process does that when the coordinator asks by message (`write_stacks`), and writes what NCCL was doing
beside it. A call in C that holds the interpreter stops that thread too; the signal `STACKS` is handled without the
interpreter. The log is standard error, wherever that leads.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import first_line
from pipeline.ordinary_files import open_to_read
from workers.run.files import RunDir, write_bytes
from workers.run.signals import STACKS

MARK = b"(most recent call first):"
"""In what `faulthandler` writes of every thread."""
_STANDARD_ERROR = 2
_log = logging.getLogger(__name__)


def write_stacks_on_signal() -> None:
    """Have `STACKS` write the stacks of all threads; without this it would end the process."""
    faulthandler.register(STACKS, file=_STANDARD_ERROR, all_threads=True)


def write_stacks(run: RunDir, log_name: str) -> bool:
    """Write the stacks of all threads, and what NCCL was doing; whether there was any of that.

    Args:
        run: its directory, where the second goes to `flight_record_of`.
        log_name: of this process.
    """
    _log.info("asked for what all threads are doing")
    faulthandler.dump_traceback(file=_STANDARD_ERROR, all_threads=True)
    record = _flight_record()
    if not record:
        return False
    try:
        write_bytes(flight_record_of(run, log_name), record, run.path)
    except OSError as error:
        _log.warning("NCCL's flight record could not be written (%s)", first_line(error))
        return False
    return True


def flight_record_of(run: RunDir, log_name: str) -> Path:
    """Where a process writes the last collectives of its NCCL groups: JSON, as PyTorch's flight recorder has it."""
    return run.logs / f"{log_name}.nccl.json"


def _flight_record() -> bytes:
    """Of the collectives that were begun lately; empty without any, or where a release of torch has no such record."""
    with suppress(Exception):  # the function is private; whatever it does now, the stacks are written
        from torch._C import _distributed_c10d

        record = vars(_distributed_c10d)["_dump_nccl_trace_json"]()
        found: Any = json.loads(record)
        return bytes(record) if found.get("entries") else b""
    return b""


class StacksInLog:
    """Watches a log for stacks that are written to it from now on.

    Args:
        log: path of the log.
        root: the run directory.
    """

    def __init__(self, log: Path, root: Path) -> None:
        self._log, self._root = log, root
        self._start = self._seen = self._size()

    def complete(self) -> bool:
        """Whether there are some, and the log has not grown since the last call."""
        before, self._seen = self._seen, self._size()
        if before != self._seen or self._seen == self._start:
            return False
        with suppress(OSError), open_to_read(self._log, self._root) as file:
            file.seek(self._start)
            return MARK in file.read(self._seen - self._start)
        return False

    def _size(self) -> int:
        with suppress(OSError):
            return os.stat(self._log, follow_symlinks=False).st_size
        return 0
