"""Makes the views of a chunk; used by worker processes and by the thread of a feed without any."""

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
    """The feed was closed; not raised to its consumer."""


@dataclass(frozen=True)
class Replacement:
    """An image that could not be decoded, and the one that replaces it.

    Args:
        row: in the batch.
        index: of the image that cannot be decoded.
        other: index of the replacement.
        reason: the error, which names the file.
    """

    row: int
    index: int
    other: int
    reason: str


class ChunkMaker:
    """Makes the chunks of one worker; for one thread.

    A view is a function of the seed, the epoch, the index of the image and its pixels. A replacement is augmented with
    the index of the image that it replaces.

    Args:
        data: section `data` of the configuration.
        num_views: of the run, see `Config.num_views`.
        seed: of the run.
        images: the training set.
        ring: memory for the views.
        worker: number of the worker, from 0.
    """

    def __init__(
        self, data: DataConfig, num_views: int, seed: int, *, images: ImageDataset, ring: Ring, worker: int
    ) -> None:
        cv2.setNumThreads(0)  # its threads would compete with those that train
        silence_size_warnings()
        self._data, self._num_views, self._seed = data, num_views, seed
        self._images, self._ring, self._worker = images, ring, worker
        here = not photometrics_on_device(data)
        self._views = ViewMaker(data, num_views, seed, photometrics=here, clock=time.perf_counter)
        self._decoding = 0.0
        self._before = ring.seconds[worker].copy()  # by earlier processes of the same number

    def make(self, chunk: Chunk, stopped: Callable[[], bool] = lambda: False) -> list[Replacement]:
        """Make the views of `chunk`; returns the images that had to be replaced.

        Raises:
            UserError: an image cannot be decoded (`data.on_error: fail`), nor can its replacements (`skip`).
            Stopped: `stopped` returned true.
        """
        layout = Layout.of(self._data, self._num_views, chunk.epoch, chunk.rows)
        views = layout.views(self._ring.slot(chunk.slot))
        replaced = []
        self._images.prefetch(chunk.samples)
        for row, index in enumerate(chunk.samples, chunk.first):
            if stopped():
                raise Stopped
            self._ring.start_image(self._worker, index)
            started = time.perf_counter()
            pixels, replacement = self._pixels(chunk.epoch, row, index)
            self._decoding += time.perf_counter() - started
            self._views.make(pixels, chunk.epoch, index, [view[row] for view in views])
            self._ring.finish_image(self._worker)
            if replacement is not None:
                replaced.append(replacement)
        spent = {**self._views.seconds, "decode": self._decoding}
        self._ring.seconds[self._worker] = self._before + [spent.get(part, 0.0) for part in PARTS]
        return replaced

    def _pixels(self, epoch: int, row: int, index: int) -> tuple[NDArray[np.uint8], Replacement | None]:
        try:
            return self._images.pixels(index), None
        except UserError as error:
            if self._data.on_error == "fail":
                raise
            reason = str(error)
        for other in replacements(self._seed, epoch, index, len(self._images)):
            try:
                return self._images.pixels(other), Replacement(row, index, other, reason)
            except UserError:
                continue
        raise UserError(f"{reason}. The images tried in its place cannot be decoded either: check the data set")
