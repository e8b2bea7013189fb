"""Which signals ask a run to stop after a snapshot, and the one that wakes a process of ours."""

from __future__ import annotations

import ctypes
import signal
from contextlib import suppress

from pipeline.config import Config

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send before they end a job; each may be left out with the key `signals`."""
WAKE = signal.SIGRTMIN + 5
"""Interrupts the main thread of a training process; of those that nobody else uses."""
PARENT_DIED = 1
"""PR_SET_PDEATHSIG of prctl."""


def leave_signals(config: Config) -> tuple[signal.Signals, ...]:
    """Those that ask for a snapshot and the end of the run; under nohup the terminal may go, and is not among them."""
    terminal = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *terminal, *(signal.Signals[name] for name in config.signals))


def leave_with_parent() -> None:
    """Have the system send SIGTERM when the process that started this one dies (Linux).

    torchrun does not handle SIGUSR1, which a scheduler may send to it: it dies, and its ranks are to leave in order.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGTERM)
