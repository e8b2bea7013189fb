"""Makes the faults of the configuration happen, each once a run directory."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.config.faults import FaultConfig
from pipeline.ordinary_files import make_folder, open_to_write, read_whole
from workers.run.files import RunDir, write_parts

PAUSE_SECONDS = 0.02
"""Between two looks for the file that ends a pause."""


class InjectedFault(Exception):
    """Raised where the configuration asked for it."""


class Faults:
    """The faults that may strike one process.

    Args:
        faults: of the whole run.
        run: remembers which have struck.
        stages: of this process.
        replica: of this process.
    """

    def __init__(self, faults: Sequence[FaultConfig], run: RunDir, stages: Sequence[int], replica: int) -> None:
        self._run = run
        self._mine = [(n, f) for n, f in enumerate(faults) if f.stage in stages and f.replica == replica]

    def before_update(self, stage: int, step: int) -> None:
        """Called when `stage` has handed on the batch of `step` and is about to learn from it."""
        for number, fault in self._mine:
            action = _ACTIONS.get(fault.kind)
            if action is not None and (fault.stage, fault.step) == (stage, step) and self._strikes(number):
                action(fault)

    def before_write(self, stage: int, steps: int) -> None:
        """Called before the snapshot file after `steps` steps is written; raises `OSError`."""
        if self._due("disk_full", stage, steps):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def after_write(self, stage: int, steps: int, file: Path) -> None:
        """Called when a snapshot file has been written and its digest taken."""
        if self._due("corrupt", stage, steps):
            data = bytearray(read_whole(file, file.stat().st_size, self._run.path))
            data[len(data) // 2] ^= 1
            write_parts(file, (data,), self._run.path)

    def _due(self, kind: str, stage: int, steps: int) -> bool:
        return any(
            fault.kind == kind and fault.stage == stage and fault.step < steps and self._strikes(number)
            for number, fault in self._mine
        )

    def _strikes(self, number: int) -> bool:
        """Whether fault `number` has not struck before; from now on it has."""
        make_folder(self._run.faults, self._run.path)
        try:
            open_to_write(self._run.faults / f"{number}", self._run.path, new=True).close()
        except FileExistsError:
            return False
        return True


def _kill(fault: FaultConfig) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise(fault: FaultConfig) -> None:
    raise InjectedFault("the configuration asked for it (faults)")


def _hang(fault: FaultConfig) -> None:
    while True:
        time.sleep(3600)


def _slow(fault: FaultConfig) -> None:
    ends = time.monotonic() + fault.seconds
    while (left := ends - time.monotonic()) > 0 and not (fault.until and os.path.exists(fault.until)):
        time.sleep(min(left, PAUSE_SECONDS) if fault.until else left)


_ACTIONS: dict[str, Callable[[FaultConfig], None]] = {"kill": _kill, "raise": _raise, "hang": _hang, "slow": _slow}
