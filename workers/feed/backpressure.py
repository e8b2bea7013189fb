"""Backpressure between the consumer of a feed and the thread that fills it: credits for free slots, and stopping.

With three slots, and counting batches from the first of the feed:

    consumer         holds 0            releases 0, holds 1     releases 1, holds 2
    feed may begin   0, 1, 2            ... 3                   ... 4
    slots            0: 0  1: 1  2: 2   0: 3  1: 1  2: 2        0: 3  1: 4  2: 2
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from workers.feed.ring import SLOTS
from workers.run.polling import readable

POLL_SECONDS = 1.0
"""Longest wait between two checks; the events that are waited for end it at once."""


class SlotCredits:
    """Batch n, counted from the first of the feed, may begin when batch n - `SLOTS` has been released."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        self._lock = threading.Lock()  # a closed descriptor may be reused by another thread
        self._closed = False
        self._released = 0
        self.stopped = False

    def fileno(self) -> int:
        """Descriptor for `select`: readable after `release` or `stop`, until `clear`."""
        return self._reader

    def release(self) -> None:
        """The consumer has finished with one more batch."""
        self._released += 1
        self._wake()

    def stop(self) -> None:
        """The consumer wants no more batches."""
        self.stopped = True
        self._wake()

    def clear(self) -> None:
        """Make the descriptor unreadable until the next event."""
        with suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def is_open(self, number: int) -> bool:
        """Whether batch `number` of the feed may begin: its slot is free."""
        return number < self._released + SLOTS

    def wait(self, number: int) -> bool:
        """Wait until batch `number` may begin; False if the consumer wants no more batches."""
        while not self.stopped and not self.is_open(number):
            readable([self._reader], POLL_SECONDS)
            self.clear()
        return not self.stopped

    def close(self) -> None:
        """Close the descriptors; may be called again."""
        with self._lock:
            if not self._closed:
                os.close(self._reader)
                os.close(self._writer)
            self._closed = True

    def _wake(self) -> None:
        with self._lock:
            if self._closed:
                return
            with suppress(BlockingIOError):  # the pipe is full, so the reader will wake anyway
                os.write(self._writer, b"!")
