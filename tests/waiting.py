"""Waiting for what another process or thread does: as long as it takes, with a limit that only a hang reaches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LIMIT = 120.0
"""Seconds. No test says how fast a machine must be: this only ends the wait for what never comes."""
PAUSE = 0.02
T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: object = "it", limit: float = LIMIT, pause: float = PAUSE) -> T:
    """Ask `condition` again and again until it answers with something true, which is returned.

    Args:
        condition: may raise an AssertionError of its own, when what is waited for cannot come any more.
        what: is missing, for the message; something callable is asked for it at the end.
        limit: seconds until the wait counts as a hang.
        pause: seconds between two questions.

    Raises:
        AssertionError: it never came.
    """
    deadline = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what() if callable(what) else what} never came, in {limit:g} s")
        time.sleep(pause)
    return found
