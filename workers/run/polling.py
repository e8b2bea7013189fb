"""Which open files have something to read, whatever their numbers are: `select.select` fails on those from 1024 on."""

from __future__ import annotations

import select
from collections.abc import Iterable


def readable(descriptors: Iterable[int], timeout: float | None = None) -> set[int]:
    """Those of `descriptors` that can be read without waiting, or whose other end has gone.

    Args:
        descriptors: of pipes, sockets or processes.
        timeout: seconds to wait for the first; None waits for ever.
    """
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    milliseconds = None if timeout is None else max(int(1000 * timeout + 0.999), 0)
    return {descriptor for descriptor, _ in poller.poll(milliseconds)}
