"""What a notebook shows of a run while a cell waits for it: the run's table, drawn again about once a second."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any, Self

REFRESH_SECONDS = 1.0


def in_kernel() -> bool:
    """Whether this is the kernel of a notebook, which shows HTML; a shell of IPython in a terminal does not."""
    shell = sys.modules.get("IPython")
    get = getattr(shell, "get_ipython", None)
    return get is not None and type(get()).__name__ == "ZMQInteractiveShell"


class Display:
    """Shows an object in the output of a cell, and keeps it up to date; nothing outside of a notebook.

    Args:
        shown: what has a `_repr_html_`.
    """

    def __init__(self, shown: object) -> None:
        self._shown, self._drawn = shown, 0.0
        self._handle: Any = None

    def __enter__(self) -> Self:
        if in_kernel():
            from IPython import display

            show: Any = display.display  # which has no types
            self._handle = show(self._shown, display_id=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._draw()

    def refresh(self) -> None:
        """Draw it again, if it was not drawn just now."""
        if self._handle is not None and time.monotonic() - self._drawn >= REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._draw()

    def _draw(self) -> None:
        if self._handle is not None:
            with suppress(OSError):  # nobody shows it any more
                self._handle.update(self._shown)
