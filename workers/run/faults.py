"""Fault injection: triggers the faults of the configuration (`faults`), each once per run directory."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from pipeline.config.faults import FaultConfig
from pipeline.ordinary_files import make_folder, open_to_write, read_whole
from pipeline.stage.bit_flips import Flippable, flip_bit
from workers.run.files import RunDir, write_parts

PAUSE_SECONDS = 0.02
"""Interval at which the file that ends a pause is looked for."""
_log = logging.getLogger(__name__)


class InjectedFault(Exception):
    """Raised by a fault of kind `raise`, and by one that finds no bit to flip."""


class Faults:
    """The faults that are injected into one process.

    Args:
        faults: of the whole run.
        run: its directory records which faults have been triggered.
        stages: that this process trains.
        replica: number of this process within its stage group, from 1.
    """

    def __init__(self, faults: Sequence[FaultConfig], run: RunDir, stages: Sequence[int], replica: int) -> None:
        self._run = run
        self._faults = [(n, f) for n, f in enumerate(faults) if f.stage in stages and f.replica == replica]

    def before_update(self, stage: int, step: int) -> None:
        """To be called when `stage` has sent the activations of `step` and is about to update its parameters."""
        for number, fault in self._faults:
            action = _ACTIONS.get(fault.kind)
            if action is not None and (fault.stage, fault.step) == (stage, step) and self._claims(number):
                action(fault)

    def exposed(self, stage: int, what: Flippable, step: int, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """To be called with what `stage` has in memory, as `pipeline.stage.bit_flips` says; raises `InjectedFault`."""
        for number, fault in self._faults:
            if (fault.kind, fault.stage, fault.step) == (f"flip_{what}", stage, step) and self._claims(number):
                found = tensors()
                if not any(tensor.numel() for tensor in found.values()):
                    raise InjectedFault(
                        f"the configuration asks for flip_{what} (faults), and there is nothing to flip"
                    )
                _log.warning("step %d: flipped %s (faults)", step, flip_bit(found, fault.draw))

    def before_write(self, stage: int, steps: int) -> None:
        """To be called before the snapshot file after `steps` steps is written; raises `OSError` for `disk_full`."""
        if self._due("disk_full", stage, steps):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def after_write(self, stage: int, steps: int, file: Path) -> None:
        """To be called when a snapshot file has been written and its digest computed; `corrupt` then flips a bit."""
        if self._due("corrupt", stage, steps):
            data = bytearray(read_whole(file, file.stat().st_size, self._run.path))
            data[len(data) // 2] ^= 1
            write_parts(file, (data,), self._run.path)

    def _due(self, kind: str, stage: int, steps: int) -> bool:
        return any(
            fault.kind == kind and fault.stage == stage and fault.step < steps and self._claims(number)
            for number, fault in self._faults
        )

    def _claims(self, number: int) -> bool:
        """Whether fault `number` has not been triggered in this run before; marks it as triggered."""
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


def _hold(fault: FaultConfig) -> None:
    while True:
        ctypes.PyDLL(None).sleep(3600)  # unlike those of CDLL, calls of PyDLL keep the interpreter


def _slow(fault: FaultConfig) -> None:
    ends = time.monotonic() + fault.seconds
    while (remaining := ends - time.monotonic()) > 0 and not (fault.until and os.path.exists(fault.until)):
        time.sleep(min(remaining, PAUSE_SECONDS) if fault.until else remaining)


_ACTIONS: dict[str, Callable[[FaultConfig], None]] = {
    "kill": _kill,
    "raise": _raise,
    "hang": _hang,
    "hold": _hold,
    "slow": _slow,
}
