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
PARENT_GONE = signal.SIGRTMIN + 6
"""What the system sends when the launcher of a rank has died. It comes once for every thread of the launcher, so it is
a signal of its own: the second SIGTERM of a user ends a process at once, the second of these says nothing new."""
PARENT_DIED = 1
"""PR_SET_PDEATHSIG of prctl."""


def leave_signals(config: Config) -> tuple[int, ...]:
    """Those that ask for a snapshot and the end of the run; under nohup the terminal may go, and is not among them."""
    terminal = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *terminal, *(signal.Signals[name] for name in config.signals), PARENT_GONE)


def signal_name(number: int) -> str:
    """In words."""
    return "the end of its launcher" if number == PARENT_GONE else signal.Signals(number).name


def leave_with_parent(number: int = PARENT_GONE) -> None:
    """Have the system send the signal `number` when the process that started this one dies (Linux).

    torchrun does not handle SIGUSR1, which a scheduler may send to it: it dies, and its ranks are to leave in order.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PARENT_DIED, number)
