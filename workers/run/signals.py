"""Which signals ask a run to stop after a snapshot, and the signals that processes of a run send each other."""

from __future__ import annotations

import ctypes
import signal
from contextlib import suppress

from pipeline.config import Config

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""Sent by schedulers before they end a job; the key `signals` chooses which of them stop a run."""
STACKS = signal.SIGRTMIN + 3
"""Has a process write the stacks of its threads to its log, even while a call in C holds the interpreter."""
WAKE = signal.SIGRTMIN + 5
"""Interrupts the main thread of a training process; a real-time signal that no library uses."""
PARENT_GONE = signal.SIGRTMIN + 6
"""Sent by the kernel when the launcher of a rank has died, once for every thread of the launcher. It cannot be SIGTERM,
whose second delivery ends a process at once."""
PARENT_DIED = 1
"""`PR_SET_PDEATHSIG` of prctl(2)."""


def stop_signals(config: Config) -> tuple[int, ...]:
    """Signals that ask for a snapshot and the end of the run; without SIGHUP where it is ignored, as under nohup."""
    terminal = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *terminal, *(signal.Signals[name] for name in config.signals), PARENT_GONE)


def signal_name(number: int) -> str:
    """Name of a signal for a message."""
    return "the end of its launcher" if number == PARENT_GONE else signal.Signals(number).name


def signal_on_parent_death(number: int = PARENT_GONE) -> None:
    """Have the kernel send the signal `number` when the process that started this one dies (Linux).

    torchrun does not handle SIGUSR1, which a scheduler may send: it dies, and its ranks must still stop in order.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PARENT_DIED, number)
