"""Where a stage says what it is doing, for whoever wants to time it: the pipeline itself reads no clock."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Spans = Callable[[str], AbstractContextManager[None]]
"""Called with what begins, such as `backward`; it lasts as long as the context that comes back."""
_NOTHING = nullcontext()


def no_spans(what: str) -> AbstractContextManager[None]:
    """Nobody wants to know."""
    return _NOTHING
