"""Tells the user what a wait is for, if it takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

NOTICE_SECONDS = 5.0
"""A wait of more than this is explained."""


@contextmanager
def notice_after(notice: Callable[[], object], seconds: float = NOTICE_SECONDS) -> Iterator[None]:
    """Call `notice` once, from a thread, if the block takes more than `seconds`."""
    timer = threading.Timer(seconds, notice)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
