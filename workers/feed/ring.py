"""The shared memory that a feed makes batches in: a ring of slots, and a cache line of counters per worker.

    | counters of worker 0 | ... of worker W-1 | slot 0     | slot 1     | slot 2     |
      one cache line each                        step 3       step 4       step 2
                                                 being made   being made   in use by the consumer

Step s is in slot s mod `SLOTS`. The size is fixed when the feed opens: a run that does not fit into memory fails before
it starts, and no batch costs an allocation and its page faults. The memory is anonymous (`workers/links/memory.py`), so
nothing is left behind.
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
"""One for the batch in use, and two for those ahead of it."""
LINE_BYTES = 64
"""Bytes for the counters of one worker: a cache line, so that no two workers write to the same one."""
IDLE = -1
_COUNTS = 16


class Ring:
    """`SLOTS` slots, and for every worker the images made, the current image, and the seconds spent by part.

    Args:
        descriptor: of a file of `Ring.size(slot_bytes, workers)` bytes.
        slot_bytes: size of the largest batch.
        workers: number of workers that write.
    """

    def __init__(self, descriptor: int, slot_bytes: int, workers: int) -> None:
        # Touching every page now keeps page faults out of the first steps.
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
        """A ring in new memory, whose descriptor workers inherit; raises `TrainingError` if there is not enough."""
        size = cls.size(slot_bytes, workers)
        try:
            descriptor = nameless_file("onward-feed", size)
        except OSError as error:
            raise TrainingError(
                f"the feed needs {size / 1e9:.2f} GB of shared memory for {SLOTS} batches, which cannot be had "
                f"({error.strerror}). Lower data.batch_size or data.image_size"
            ) from None
        ring = cls(descriptor, slot_bytes, workers)
        ring._current[:] = IDLE
        return ring

    @staticmethod
    def size(slot_bytes: int, workers: int) -> int:
        """Bytes of the file."""
        return whole_pages(workers * LINE_BYTES) + SLOTS * whole_pages(slot_bytes)

    def slot(self, number: int) -> NDArray[np.uint8]:
        """The bytes of slot `number`, `[slot_bytes]`."""
        return self._slots[number]

    def start_image(self, worker: int, index: int) -> None:
        """`worker` starts with image `index`."""
        self._current[worker] = index

    def finish_image(self, worker: int) -> None:
        """`worker` has made the views of its current image."""
        self._made[worker] += 1
        self._current[worker] = IDLE

    @property
    def made(self) -> int:
        """Images made by all workers so far, including those that had to be made again."""
        return int(self._made.sum())

    def current(self, worker: int | None = None) -> list[int]:
        """Indices of the images that `worker`, or all workers, are working on."""
        numbers = self._current if worker is None else self._current[worker : worker + 1]
        return [int(index) for index in numbers if index != IDLE]

    def close(self) -> None:
        """Release the slots and the descriptor; the counters keep their current values."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1
        self._made, self._current = self._made.copy(), self._current.copy()
        self.seconds, self._slots = self.seconds.copy(), []
