"""Named parts of a step, for timing: the pipeline itself reads no clock."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Spans = Callable[[str], AbstractContextManager[None]]
"""Called with the name of a part, such as `backward`, which lasts as long as the context that it returns."""
_NOTHING = nullcontext()


def no_spans(name: str) -> AbstractContextManager[None]:
    """Times nothing."""
    return _NOTHING
