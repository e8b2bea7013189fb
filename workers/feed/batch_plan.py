"""The plan of a feed: the images of every step, the layout of their views in a slot, and the chunks for workers.

Everything here is a function of the step, so any worker can make any chunk, also again after another has died.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import IO, Self

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import Config, DataConfig
from pipeline.data.augment.resolution import view_sizes
from pipeline.data.augment.view_kinds import sizes_differ, view_kinds
from pipeline.data.sampler import StepPlan
from workers.feed.ring import SLOTS

CHUNK_ROWS = 64
"""Most images of a chunk: bounds the time until a worker answers, and the work that is lost when it dies."""
CHUNKS_PER_WORKER = 4
"""Chunks of a batch per worker, so that all workers finish a batch at about the same time."""
CHUNK_PIXELS = 2**14
"""Fewest pixels of one view in a chunk: milliseconds of work, compared with some ten microseconds for the message."""
_FRONT = struct.Struct("6q")


@dataclass(frozen=True)
class Layout:
    """The layout of a batch in a slot: one view after the other, or, packed, one image after the other.

    Args:
        sizes: side in pixels of every view.
        rows: number of images in the batch.
        packed: whether views have different sizes; see `pipeline.data.packing`.
    """

    sizes: tuple[int, ...]
    rows: int
    packed: bool

    @staticmethod
    @lru_cache(maxsize=16)
    def of(data: DataConfig, num_views: int, epoch: int, rows: int) -> Layout:
        """The layout of the batches of `epoch`."""
        return Layout(view_sizes(data, epoch, num_views), rows, sizes_differ(data))

    @classmethod
    def largest(cls, data: DataConfig, num_views: int, rows: int) -> Layout:
        """The layout of the batches of the last epoch, which are the largest."""
        return cls(tuple(kind.size for kind in view_kinds(data, num_views)), rows, sizes_differ(data))

    @property
    def shape(self) -> tuple[int, ...]:
        """`[V, rows, S, S, 3]`; packed, `[1, rows, total]`."""
        pixels = [3 * size * size for size in self.sizes]
        if self.packed:
            return 1, self.rows, sum(pixels)
        return len(self.sizes), self.rows, self.sizes[0], self.sizes[0], 3

    @property
    def nbytes(self) -> int:
        """Bytes of all views of the batch."""
        return prod(self.shape)

    def views(self, slot: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Each view of the batch in the memory of `slot`, `[rows, S_v, S_v, 3]`."""
        batch = slot[: self.nbytes].reshape(self.shape)
        if not self.packed:
            return list(batch)
        ends = np.cumsum([size * size * 3 for size in self.sizes])
        parts = np.split(batch[0], ends[:-1], axis=1)
        return [part.reshape(self.rows, size, size, 3) for part, size in zip(parts, self.sizes, strict=True)]

    def tensor(self, slot: NDArray[np.uint8]) -> torch.Tensor:
        """The batch in the form in which it is sent, in the memory of `slot`; see `shape`."""
        return torch.from_numpy(slot[: self.nbytes]).view(self.shape)


@dataclass(frozen=True, kw_only=True, order=True)
class Chunk:
    """Some neighbouring rows of one batch, the unit of work of a worker.

    Args:
        step, epoch: of the batch, counted from 0.
        slot: of the ring.
        rows: number of rows of the whole batch.
        first: row of the first image.
        samples: indices of the images in the data set.
    """

    step: int
    first: int
    epoch: int
    slot: int
    rows: int
    samples: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """As it is sent to a worker process: 64-bit integers; the sixth is the number of samples that follow."""
        front = _FRONT.pack(self.step, self.first, self.epoch, self.slot, self.rows, len(self.samples))
        return front + np.array(self.samples, np.int64).tobytes()

    @classmethod
    def read(cls, file: IO[bytes]) -> Self | None:
        """The next chunk that `to_bytes` has written; None at the end of the file."""
        front = file.read(_FRONT.size)
        if len(front) < _FRONT.size:
            return None
        step, first, epoch, slot, rows, count = _FRONT.unpack(front)
        samples = np.frombuffer(file.read(8 * count), np.int64)
        return cls(step=step, first=first, epoch=epoch, slot=slot, rows=rows, samples=tuple(samples.tolist()))


@dataclass(frozen=True)
class BatchTask:
    """What is to be made for one step.

    Args:
        step, epoch: counted from 0.
        slot: of the ring.
        samples: indices of the images in the data set, int64 `[rows]`.
    """

    step: int
    epoch: int
    slot: int
    samples: NDArray[np.int64]

    def chunks(self, size: int) -> Iterator[Chunk]:
        """The batch in order, in chunks of up to `size` images."""
        for first in range(0, len(self.samples), size):
            samples = tuple(self.samples[first : first + size].tolist())
            yield Chunk(
                step=self.step, first=first, epoch=self.epoch, slot=self.slot, rows=len(self.samples), samples=samples
            )


def slot_bytes(config: Config, parts: int) -> int:
    """Bytes of the largest batch of a feed that makes one of so many parts of every batch."""
    return Layout.largest(config.data, config.num_views, -(-config.data.batch_size // parts)).nbytes


class BatchPlan:
    """The tasks of a feed, from `start_step` to the end of the run.

    Args:
        config: of the run.
        num_samples: number of images in the training set.
        start_step: counted from 0.
        part: (r, R): rows r * B / R to (r + 1) * B / R of every batch of B.
    """

    def __init__(self, config: Config, num_samples: int, start_step: int, part: tuple[int, int]) -> None:
        self.data, self.num_views, self.start_step = config.data, config.num_views, start_step
        self._plan, self._part = StepPlan.of(config, num_samples), part
        self.total_steps, self.steps_per_epoch = self._plan.total_steps, self._plan.steps_per_epoch
        self.slot_bytes = slot_bytes(config, part[1])

    def steps(self) -> range:
        """All steps to be prepared."""
        return range(self.start_step, self.total_steps)

    def task(self, step: int) -> BatchTask:
        """The task of `step`."""
        epoch, samples = self._plan.batch(step)
        return BatchTask(step, epoch, step % SLOTS, samples[self._rows(len(samples))])

    def layout(self, task: BatchTask) -> Layout:
        """Layout of the batch in its slot."""
        return Layout.of(self.data, self.num_views, task.epoch, len(task.samples))

    def chunk_rows(self, task: BatchTask, workers: int) -> int:
        """Number of images per chunk for so many workers."""
        size = self.layout(task).sizes[0]
        least = -(-CHUNK_PIXELS // size**2)
        share = -(-len(task.samples) // (CHUNKS_PER_WORKER * workers)) if workers > 1 else CHUNK_ROWS
        return min(max(share, least), CHUNK_ROWS)

    def _rows(self, batch: int) -> slice:
        number, of = self._part
        return slice(number * batch // of, (number + 1) * batch // of)
