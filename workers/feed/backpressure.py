"""What the consumer of a feed tells the thread that fills it: a slot is free again, or stop."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from workers.feed.ring import SLOTS
from workers.run.polling import readable

POLL_SECONDS = 1.0
"""Nothing waits longer without looking around; what it waits for wakes it at once."""


class SlotCredits:
    """Lets batch n, counted from the first of the feed, begin once all but `SLOTS` - 1 before it were given back."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        self._lock = threading.Lock()  # a closed descriptor may belong to somebody else a moment later
        self._closed = False
        self._released = 0
        self.stopped = False

    def fileno(self) -> int:
        """Readable when there is news; `clear` makes it wait for more."""
        return self._reader

    def release(self) -> None:
        """The consumer has done with one more batch."""
        self._released += 1
        self._wake()

    def stop(self) -> None:
        """No more batches are wanted."""
        self.stopped = True
        self._wake()

    def clear(self) -> None:
        """The news has been heard."""
        with suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def is_open(self, number: int) -> bool:
        """Whether batch `number` of the feed may be begun."""
        return number < self._released + SLOTS

    def wait(self, number: int) -> bool:
        """Until batch `number` may be begun; whether it still is wanted then."""
        while not self.stopped and not self.is_open(number):
            readable([self._reader], POLL_SECONDS)
            self.clear()
        return not self.stopped

    def close(self) -> None:
        """Nobody waits any more; may be called again."""
        with self._lock:
            if not self._closed:
                os.close(self._reader)
                os.close(self._writer)
            self._closed = True

    def _wake(self) -> None:
        with self._lock:
            if self._closed:
                return
            with suppress(BlockingIOError):  # it is full of news already
                os.write(self._writer, b"!")
