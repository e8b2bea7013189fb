"""The batches of a run, augmented ahead of time, in the order of the plan, from any step on.

A thread keeps two batches ready. It makes them itself (`data.workers: 0`) or by worker processes. Every view is a
function of (seed, epoch, image, view), so batches are bit-identical for any number of workers, also when workers died.
Any error in the thread or a worker is raised in the consumer.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import Config, DataConfig
from pipeline.data.sets.datasets import ImageDataset, open_dataset
from pipeline.data.sets.shared import share
from pipeline.errors import OnwardError, TrainingError
from workers.control.feed_report import PARTS, FeedMeasures
from workers.control.start_messages import FeedWorkerStart
from workers.feed.affinity import cores_for
from workers.feed.backpressure import SlotCredits
from workers.feed.batch_plan import BatchPlan, BatchTask
from workers.feed.pool import BatchSource, LocalSource, WorkerPool
from workers.feed.ring import Ring
from workers.feed.view_worker import ChunkMaker, Replacement
from workers.observing.trace import MAKING, NO_TRACE, Tracer
from workers.run.closable import Closable
from workers.run.cores import allowed_cores
from workers.topology.processes import training_processes

POLL_SECONDS = 0.25
"""Interval at which a waiting consumer checks whether the feed was closed or is stuck."""
START_SECONDS = 120.0
"""Limit for starting worker processes, where `link.timeout` is less; far above what a busy machine takes."""
CLOSE_SECONDS = 20.0
"""Limit for stopping, far above what it takes; a thread that needs longer is abandoned (it is a daemon)."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FeedBatch:
    """The input of one step.

    Args:
        step, epoch: counted from 0.
        last: no batch follows.
        views: uint8 `[V, B, S, S, 3]`, view 1 first; `[1, B, total]` where views have several sizes
            (`pipeline.data.packing`). In shared memory, valid until the next batch is requested.
        samples: indices of the images in the data set, int64 `[B]`.
        labels: classes of the images, int64 `[B]`, if a loss uses them, else None.
    """

    step: int
    epoch: int
    last: bool
    views: torch.Tensor
    samples: NDArray[np.int64]
    labels: NDArray[np.int64] | None = None


class Feed(Closable):
    """Iterates over the batches of the steps `start_step` to `total_steps - 1`; a context manager.

    At most two batches are kept ready; then the feed pauses until one is taken. `close` discards the rest.

    An image that cannot be decoded ends the feed or, with `data.on_error: skip`, is replaced by another one, always the
    same, in pixels and label. `samples` keeps the original index, which also seeds the augmentation.

    Args:
        config: of the run; the feed is stuck if it makes no progress for `link.timeout` seconds.
        start_step: the first step, counted from 0.
        part: (r, R): only rows r * B / R to (r + 1) * B / R of every batch, those of replica r.
        trace: records when each batch was made.

    Raises:
        UserError: the data set cannot be opened, or (while iterating) an image cannot be decoded.
        TrainingError: there is not enough memory, or (while iterating) worker processes died repeatedly, or no batch
            was made in time.
    """

    def __init__(
        self, config: Config, start_step: int = 0, part: tuple[int, int] = (0, 1), trace: Tracer = NO_TRACE
    ) -> None:
        self.trace = trace
        self.images = open_dataset(config.data, "train")
        """The training set."""
        self.num_classes = self.images.num_classes
        self._batch_plan = BatchPlan(config, len(self.images), start_step, part)
        self.total_steps, self.steps_per_epoch = self._batch_plan.total_steps, self._batch_plan.steps_per_epoch
        self.wait_seconds = 0.0
        """Seconds that the consumer has waited for batches."""
        self._labels = self.images.labels if config.uses_labels else None
        self._workers, self._timeout = config.data.workers, config.link.timeout
        self._next, self._handed_out, self._images_handed_out, self._skipped = start_step, False, 0, 0
        self._warned_about: set[int] = set()
        self._ready: queue.SimpleQueue[tuple[BatchTask, list[Replacement]] | BaseException] = queue.SimpleQueue()
        with ExitStack() as stack:
            shared = _share(config.data, self.images)
            if shared is not None:
                stack.callback(os.close, shared)
            self._ring = Ring.create(self._batch_plan.slot_bytes, max(self._workers, 1))
            stack.callback(self._ring.close)
            self._credits = SlotCredits()
            stack.callback(self._credits.close)
            self._source = self._open_source(config, part, shared)
            self._resources = stack.pop_all()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[FeedBatch]:
        return self

    def __next__(self) -> FeedBatch:
        if self._next >= self.total_steps:
            raise StopIteration
        if self._handed_out:
            self._credits.release()
        self._handed_out = False
        started = time.monotonic()
        try:
            item = self._next_item(started)
        finally:
            self.wait_seconds += time.monotonic() - started
        if isinstance(item, BaseException):
            self.close()
            raise item
        self._next, self._handed_out = self._next + 1, True
        return self._batch(*item)

    def measures(self) -> FeedMeasures:
        """Statistics of the feed so far."""
        seconds = dict(zip(PARTS, self._ring.seconds.sum(axis=0).tolist(), strict=True))
        return FeedMeasures(
            wait_seconds=self.wait_seconds,
            images=self._images_handed_out,
            seconds=seconds,
            restarts=self._source.restarts,
            skipped=self._skipped,
            memory_bytes=self._ring.nbytes,
            workers=self._workers,
        )

    def close(self) -> None:
        """Stop the thread and the worker processes, and wait for them; may be called again."""
        self._credits.stop()
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._resources.close()

    def _open_source(self, config: Config, part: tuple[int, int], shared: int | None) -> BatchSource:
        data, workers = config.data, config.data.workers
        if workers == 0:
            images = self.images if shared is None else open_dataset(data, "train", shared)
            maker = partial(ChunkMaker, data, config.num_views, config.seed, images=images, ring=self._ring, worker=0)
            return LocalSource(self._batch_plan, self._credits, maker)
        processes = 1 if config.in_one_process else len(training_processes(config))
        allowed = allowed_cores() if data.affinity else set()
        # The feeds of other replicas may run on this host, too.
        cores = cores_for(workers * part[1], processes * config.threads, allowed)[workers * part[0] :][:workers]
        starts = [
            FeedWorkerStart(
                data=data.model_dump_json(),
                num_views=config.num_views,
                seed=config.seed,
                ring=self._ring.descriptor,
                slot_bytes=self._batch_plan.slot_bytes,
                workers=workers,
                worker=worker,
                shared=shared,
                core=core,
            )
            for worker, core in enumerate(cores)
        ]
        return WorkerPool(self._batch_plan, self._credits, self._ring, starts, self.images.name_of)

    def _next_item(self, started: float) -> tuple[BatchTask, list[Replacement]] | BaseException:
        seen, since = self._progress(), started
        while True:
            if self._credits.stopped:
                raise TrainingError("the feed is closed and gives no more batches")
            with suppress(queue.Empty):
                return self._ready.get(timeout=POLL_SECONDS)
            if (progress := self._progress()) != seen:
                seen, since = progress, time.monotonic()
            idle = time.monotonic() - since
            starting = self._source.starts < max(self._workers, 1) + self._source.restarts
            if idle > (max(self._timeout, START_SECONDS) if starting else self._timeout):
                raise TrainingError(self._stuck_message(idle))

    def _progress(self) -> tuple[int, int]:
        return self._ring.made, self._source.starts

    def _stuck_message(self, idle: float) -> str:
        at = [f"'{self.images.name_of(index)}'" for index in self._ring.current()]
        where = f", held up by image {' and '.join(at)}" if at else ""
        return (
            f"the feed produced nothing for {idle:.0f} s while step {self._next} waited for its batch{where}. "
            "Check that the data can be read; link.timeout sets how long to wait"
        )

    def _run(self) -> None:
        try:
            with self._source as source:
                previous_end = 0.0
                for item in source.batches():
                    # Batches that are made concurrently count from the end of the previous one.
                    self.trace.took(MAKING, "make batch", max(source.started_at, previous_end), item[0].step)
                    previous_end = time.monotonic()
                    self._ready.put(item)
        except OnwardError as error:
            # The traceback would keep all objects of its frames alive as long as the error.
            error.__context__ = None
            self._ready.put(error.with_traceback(None))
        except BaseException as error:
            self._ready.put(error)

    def _batch(self, task: BatchTask, replaced: Sequence[Replacement]) -> FeedBatch:
        views = self._batch_plan.layout(task).tensor(self._ring.slot(task.slot))
        self._images_handed_out += len(task.samples)
        self._skipped += len(replaced)
        for replacement in replaced:
            if replacement.index not in self._warned_about:
                self._warned_about.add(replacement.index)
                name = self.images.name_of(replacement.other)
                _log.warning("%s. In its place '%s' is taken (data.on_error: skip)", replacement.reason, name)
        labels = None
        if self._labels is not None:
            shown = task.samples.copy()
            shown[[replacement.row for replacement in replaced]] = [replacement.other for replacement in replaced]
            labels = self._labels[shown]
        return FeedBatch(
            step=task.step,
            epoch=task.epoch,
            last=task.step == self.total_steps - 1,
            views=views,
            samples=task.samples,
            labels=labels,
        )


def _share(data: DataConfig, images: ImageDataset) -> int | None:
    """A descriptor by which workers open the data set; None where none is needed."""
    if not data.workers and not data.in_memory:
        return None
    if data.in_memory:
        _log.info("reading all files of the data set into memory (data.in_memory)")
    return share(images, data.in_memory)
