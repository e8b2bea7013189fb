"""Functions on fake tensors, in a process that ends afterwards.

They start threads of autograd, after which no process that is forked from this one could run a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from workers.determinism.child import run_in_child

LIMIT = 300.0
"""Seconds."""


def in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns, which is something that JSON can hold."""
    outcome = run_in_child(partial(work, *arguments), LIMIT)
    assert outcome.result is not None, outcome
    return outcome.result
