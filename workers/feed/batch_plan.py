"""What a feed has to make: the images of every step, where their views go, and the pieces that workers are given.

Everything here is a function of the step, so that any worker can make any piece, as often as need be.
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
"""Most images of a piece: bounds how long a worker is deaf, and what is lost with it."""
CHUNKS_PER_WORKER = 4
"""Pieces of a batch for each of several workers, so that all of them finish it at about the same time."""
CHUNK_PIXELS = 2**14
"""Pixels of one view in a piece, at least: milliseconds of work, against a message of some ten microseconds."""
_FRONT = struct.Struct("6q")


@dataclass(frozen=True)
class Layout:
    """How the views of a batch lie in a slot: one view after the other, or, packed, one image after the other.

    Args:
        sizes: side in pixels of every view.
        rows: images of the batch.
        packed: whether the views of the run have several sizes; see `pipeline.data.packing`.
    """

    sizes: tuple[int, ...]
    rows: int
    packed: bool

    @staticmethod
    @lru_cache(maxsize=16)
    def of(data: DataConfig, num_views: int, epoch: int, rows: int) -> Layout:
        """Of the batches of `epoch`."""
        return Layout(view_sizes(data, epoch, num_views), rows, sizes_differ(data))

    @classmethod
    def largest(cls, data: DataConfig, num_views: int, rows: int) -> Layout:
        """Of the batches of the last epoch, which are the largest."""
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
        """Of all views of the batch."""
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
        """The batch as it travels, in the memory of `slot`; see `shape`."""
        return torch.from_numpy(slot[: self.nbytes]).view(self.shape)


@dataclass(frozen=True, order=True)
class Chunk:
    """A piece of work: some neighbouring rows of one batch.

    Args:
        step, epoch: of the batch, counted from 0.
        slot: of the ring.
        rows: of the whole batch.
        first: row of the first image.
        samples: the numbers of the images.
    """

    step: int
    first: int
    epoch: int
    slot: int
    rows: int
    samples: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """For a worker process: 64-bit integers, the last of the six in front is the number of samples."""
        front = _FRONT.pack(self.step, self.first, self.epoch, self.slot, self.rows, len(self.samples))
        return front + np.array(self.samples, np.int64).tobytes()

    @classmethod
    def read(cls, file: IO[bytes]) -> Self | None:
        """The next one that `to_bytes` made; None at the end of the file."""
        front = file.read(_FRONT.size)
        if len(front) < _FRONT.size:
            return None
        step, first, epoch, slot, rows, count = _FRONT.unpack(front)
        samples = np.frombuffer(file.read(8 * count), np.int64)
        return cls(step, first, epoch, slot, rows, tuple(samples.tolist()))


@dataclass(frozen=True)
class BatchTask:
    """The batch of one step.

    Args:
        step, epoch: counted from 0.
        slot: of the ring.
        samples: the numbers of the images, int64 `[rows]`.
    """

    step: int
    epoch: int
    slot: int
    samples: NDArray[np.int64]

    def chunks(self, most: int) -> Iterator[Chunk]:
        """All of it in order, in pieces of up to `most` images."""
        for first in range(0, len(self.samples), most):
            samples = tuple(self.samples[first : first + most].tolist())
            yield Chunk(self.step, first, self.epoch, self.slot, len(self.samples), samples)


class BatchPlan:
    """The work of a feed, from `start_step` to the end of the run.

    Args:
        config: the run.
        num_samples: images in the training set.
        start_step: counted from 0.
        part: (r, R): rows r * B / R to (r + 1) * B / R of every batch of B.
    """

    def __init__(self, config: Config, num_samples: int, start_step: int, part: tuple[int, int]) -> None:
        self.data, self.num_views, self.start_step = config.data, config.num_views, start_step
        self._plan, self._part = StepPlan.of(config, num_samples), part
        self.total_steps, self.steps_per_epoch = self._plan.total_steps, self._plan.steps_per_epoch
        largest = -(-self._plan.batch_size // part[1])
        self.slot_bytes = Layout.largest(self.data, self.num_views, largest).nbytes

    def steps(self) -> range:
        """All steps that are to be made."""
        return range(self.start_step, self.total_steps)

    def work(self, step: int) -> BatchTask:
        """What `step` is made of."""
        epoch, samples = self._plan.batch(step)
        return BatchTask(step, epoch, step % SLOTS, samples[self._rows(len(samples))])

    def layout(self, work: BatchTask) -> Layout:
        """Where its views lie in their slot."""
        return Layout.of(self.data, self.num_views, work.epoch, len(work.samples))

    def chunk_rows(self, work: BatchTask, workers: int) -> int:
        """How many images of it to give to a worker at once."""
        size = self.layout(work).sizes[0]
        least = -(-CHUNK_PIXELS // size**2)
        share = -(-len(work.samples) // (CHUNKS_PER_WORKER * workers)) if workers > 1 else CHUNK_ROWS
        return min(max(share, least), CHUNK_ROWS)

    def _rows(self, batch: int) -> slice:
        number, of = self._part
        return slice(number * batch // of, (number + 1) * batch // of)
