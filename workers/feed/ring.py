"""The memory that a feed makes batches in: slots that are used over and over, and a line of numbers for each worker.

Its size is settled when the feed opens, so that a run which does not fit fails before it starts, and no
batch costs an allocation or the page faults that come with one. It has no name anywhere (see
`workers/links/memory.py`), so nothing of it can be left behind.
"""

from __future__ import annotations

import mmap
import os
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TrainingError
from workers.control.feed_report import PARTS
from workers.links.memory import nameless_file, whole_pages

SLOTS = 3
"""The batch in use, and two ahead of it."""
LINE_BYTES = 64
"""Of the numbers of one worker: a cache line, so that no two workers write to the same."""
NOTHING = -1
_COUNTS = 16


class Ring:
    """`SLOTS` slots, and of every worker how many images it made, which it is at, and the seconds it spent by part.

    Args:
        descriptor: of a file of `Ring.size(slot_bytes, workers)` bytes.
        slot_bytes: of the largest batch.
        workers: who write, counted from 0.
    """

    def __init__(self, descriptor: int, slot_bytes: int, workers: int) -> None:
        # Touching every page now keeps page faults out of the first lap.
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        self.descriptor, self.nbytes = descriptor, self.size(slot_bytes, workers)
        memory = np.frombuffer(mmap.mmap(descriptor, self.nbytes, flags=flags), np.uint8)  # keeps the mapping alive
        lines = memory[: workers * LINE_BYTES].reshape(workers, LINE_BYTES)
        self._made, self._current = lines[:, :_COUNTS].view(np.int64).T
        self.seconds: NDArray[np.float64] = lines[:, _COUNTS : _COUNTS + 8 * len(PARTS)].view(np.float64)
        """`[workers, PARTS]`."""
        pages = whole_pages(slot_bytes)
        head = whole_pages(workers * LINE_BYTES)
        self._slots = [memory[head + n * pages :][:slot_bytes] for n in range(SLOTS)]

    @classmethod
    def create(cls, slot_bytes: int, workers: int) -> Self:
        """A ring of new memory, whose descriptor others can be given; raises `TrainingError` if it cannot be had."""
        size = cls.size(slot_bytes, workers)
        try:
            descriptor = nameless_file("onward-feed", size)
        except OSError as error:
            raise TrainingError(
                f"the feed needs {size / 1e9:.2f} GB of shared memory for {SLOTS} batches, which cannot be had "
                f"({error.strerror}). Lower data.batch_size or data.image_size"
            ) from None
        ring = cls(descriptor, slot_bytes, workers)
        ring._current[:] = NOTHING
        return ring

    @staticmethod
    def size(slot_bytes: int, workers: int) -> int:
        """Bytes of the file."""
        return whole_pages(workers * LINE_BYTES) + SLOTS * whole_pages(slot_bytes)

    def slot(self, number: int) -> NDArray[np.uint8]:
        """The bytes of slot `number`, `[slot_bytes]`."""
        return self._slots[number]

    def begin(self, worker: int, index: int) -> None:
        """`worker` turns to image `index`."""
        self._current[worker] = index

    def finish(self, worker: int) -> None:
        """`worker` has made the views of an image."""
        self._made[worker] += 1
        self._current[worker] = NOTHING

    @property
    def made(self) -> int:
        """Images made by all workers so far, those of a batch that must be made again included."""
        return int(self._made.sum())

    def current(self, worker: int | None = None) -> list[int]:
        """The images that are being worked on, by `worker` or by all."""
        numbers = self._current if worker is None else self._current[worker : worker + 1]
        return [int(index) for index in numbers if index != NOTHING]

    def close(self) -> None:
        """Let go of the slots and of the descriptor; the numbers of the workers stay, as they are now."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1
        self._made, self._current = self._made.copy(), self._current.copy()
        self.seconds, self._slots = self.seconds.copy(), []
