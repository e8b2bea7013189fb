"""Waits until descriptors can be read. Uses `poll`, because `select.select` fails for descriptors of 1024 or more."""

from __future__ import annotations

import select
from collections.abc import Iterable


def readable(descriptors: Iterable[int], timeout: float | None = None) -> set[int]:
    """Those of `descriptors` that can be read without blocking, or whose other end is closed.

    Args:
        descriptors: of pipes, sockets or processes (pidfd).
        timeout: seconds to wait for the first; None waits without limit.
    """
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    milliseconds = None if timeout is None else max(int(1000 * timeout + 0.999), 0)
    return {descriptor for descriptor, _ in poller.poll(milliseconds)}
