"""Makes the views of a piece of a batch; the same code in a worker process as in the feed's own thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.config import DataConfig
from pipeline.data.augment.device_photometrics import photometrics_on_device
from pipeline.data.augment.views import ViewMaker
from pipeline.data.sets.datasets import ImageDataset
from pipeline.data.sets.decoding import silence_size_warnings
from pipeline.data.sets.replacement import replacements
from pipeline.errors import UserError
from workers.control.feed_report import PARTS
from workers.feed.batch_plan import Chunk, Layout
from workers.feed.ring import Ring


class Stopped(Exception):
    """The feed was closed; never seen outside of it."""


@dataclass(frozen=True)
class Replacement:
    """An image that could not be decoded, and the one whose pixels stand in its place.

    Args:
        row: of the batch.
        index: of the image that was due.
        other: of the one that was taken.
        why: what was wrong, naming the file.
    """

    row: int
    index: int
    other: int
    why: str


class ChunkMaker:
    """One worker; for one thread.

    A view is a function of the seed, the epoch, the number of the image and its pixels. That holds for a stand-in
    too: it is augmented as the image would have been that it stands for.

    Args:
        data: the section of the configuration.
        num_views: of the run, see `Config.num_views`.
        seed: of the run.
        images: the training set.
        ring: where views go.
        worker: its number, counted from 0.
    """

    def __init__(
        self, data: DataConfig, num_views: int, seed: int, images: ImageDataset, ring: Ring, worker: int
    ) -> None:
        cv2.setNumThreads(0)  # its threads would fight with those that train
        silence_size_warnings()
        self._data, self._num_views, self._seed = data, num_views, seed
        self._images, self._ring, self._worker = images, ring, worker
        here = not photometrics_on_device(data)
        self._views = ViewMaker(data, num_views, seed, photometrics=here, clock=time.perf_counter)
        self._decoding = 0.0
        self._before = ring.seconds[worker].copy()  # of the processes that had this number before

    def make(self, chunk: Chunk, stopped: Callable[[], bool] = lambda: False) -> list[Replacement]:
        """Make the views of `chunk`; returns where other images had to stand in.

        Raises:
            UserError: an image cannot be decoded (`data.on_error: fail`), naming it, or nor can those tried instead.
            Stopped: `stopped` said so.
        """
        layout = Layout.of(self._data, self._num_views, chunk.epoch, chunk.rows)
        views = layout.views(self._ring.slot(chunk.slot))
        stand_ins = []
        self._images.prefetch(chunk.samples)
        for row, index in enumerate(chunk.samples, chunk.first):
            if stopped():
                raise Stopped
            self._ring.begin(self._worker, index)
            started = time.perf_counter()
            pixels, stand_in = self._pixels(chunk.epoch, row, index)
            self._decoding += time.perf_counter() - started
            self._views.make(pixels, chunk.epoch, index, [view[row] for view in views])
            self._ring.finish(self._worker)
            if stand_in is not None:
                stand_ins.append(stand_in)
        spent = {**self._views.seconds, "decode": self._decoding}
        self._ring.seconds[self._worker] = self._before + [spent.get(part, 0.0) for part in PARTS]
        return stand_ins

    def _pixels(self, epoch: int, row: int, index: int) -> tuple[NDArray[np.uint8], Replacement | None]:
        try:
            return self._images.pixels(index), None
        except UserError as error:
            if self._data.on_error == "fail":
                raise
            why = str(error)
        for other in replacements(self._seed, epoch, index, len(self._images)):
            try:
                return self._images.pixels(other), Replacement(row, index, other, why)
            except UserError:
                continue
        raise UserError(f"{why}. The images tried in its place cannot be decoded either: check the data set")
