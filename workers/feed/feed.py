"""The batches of a run, augmented ahead of time, in the order of the plan, from any step on.

A thread keeps two batches ready. It makes them itself (`data.workers: 0`) or has worker processes make them; every
view is a function of (seed, epoch, image, view), so the batches are the same bits for any number of workers, and
when a worker died on the way. What goes wrong anywhere reaches the consumer as one error.
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
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import Config, DataConfig
from pipeline.data.sets.datasets import ImageDataset, open_dataset
from pipeline.data.sets.shared import share
from pipeline.errors import OnwardError, TrainingError
from workers.control.feed_report import PARTS, FeedMeasures
from workers.control.start_messages import FeedWorkerStart
from workers.feed.affinity import allowed_cores, cores_for
from workers.feed.backpressure import SlotCredits
from workers.feed.batch_plan import BatchPlan, BatchTask
from workers.feed.pool import Local, Pool, Source
from workers.feed.ring import Ring
from workers.feed.view_worker import ChunkMaker, Replacement
from workers.observing.trace import MAKING, NO_TRACE, Tracer
from workers.topology.members import members

POLL_SECONDS = 0.25
"""How soon a consumer that waits notices that the feed was closed or is stuck."""
START_SECONDS = 120.0
"""Far above what a worker process takes to start on a busy machine, where `link.timeout` is less."""
CLOSE_SECONDS = 20.0
"""Far above what stopping takes; a thread that needs longer is left behind (it is a daemon)."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeedBatch:
    """One step's input.

    Args:
        step, epoch: counted from 0.
        last: no batch follows.
        views: uint8 `[V, B, S, S, 3]`, view 1 first; `[1, B, total]` where views have several sizes
            (`pipeline.data.packing`). In the memory of the feed: valid until the next one is asked for.
        samples: the numbers of the images in the data set, int64 `[B]`.
        labels: the classes of the images, int64 `[B]`, if a loss uses them, else None.
    """

    step: int
    epoch: int
    last: bool
    views: torch.Tensor
    samples: NDArray[np.int64]
    labels: NDArray[np.int64] | None = None


class Feed:
    """Iterates over the batches of the steps `start_step` to `total_steps - 1`; a context manager.

    At most two batches wait; nothing is made then until one is taken. `close` throws the rest away.

    An image that cannot be decoded ends the feed, or, with `data.on_error: skip`, another one stands in for it, pixels
    and label, always the same; its place in `samples` keeps its own number, by which its views are drawn.

    Args:
        config: the run; `link.timeout` is how many seconds the feed may make no progress.
        start_step: the first step, counted from 0.
        part: (r, R): only rows r * B / R to (r + 1) * B / R of every batch, those of replica r.
        trace: is told when each batch was made.

    Raises:
        UserError: the data set cannot be opened, or (while iterating) an image cannot be decoded.
        TrainingError: the memory cannot be had, or (while iterating) worker processes died again and again, or
            nothing was produced in time.
    """

    def __init__(
        self, config: Config, start_step: int = 0, part: tuple[int, int] = (0, 1), trace: Tracer = NO_TRACE
    ) -> None:
        self.trace = trace
        self.images = open_dataset(config.data, "train")
        """The data set that is read."""
        self.num_classes = self.images.num_classes
        self._batch_plan = BatchPlan(config, len(self.images), start_step, part)
        self.total_steps, self.steps_per_epoch = self._batch_plan.total_steps, self._batch_plan.steps_per_epoch
        self.wait_seconds = 0.0
        """How long the consumer has waited for batches."""
        self._labels = self.images.labels if config.uses_labels else None
        self._workers, self._timeout = config.data.workers, config.link.timeout
        self._next, self._given, self._images_given, self._skipped = start_step, False, 0, 0
        self._known: set[int] = set()
        self._ready: queue.SimpleQueue[tuple[BatchTask, list[Replacement]] | BaseException] = queue.SimpleQueue()
        with ExitStack() as stack:
            shared = _share(config.data, self.images)
            if shared is not None:
                stack.callback(os.close, shared)
            self._ring = Ring.create(self._batch_plan.slot_bytes, max(self._workers, 1))
            stack.callback(self._ring.close)
            self._gate = SlotCredits()
            stack.callback(self._gate.close)
            self._source = self._open_source(config, part, shared)
            self._held = stack.pop_all()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[FeedBatch]:
        return self

    def __next__(self) -> FeedBatch:
        if self._next >= self.total_steps:
            raise StopIteration
        if self._given:
            self._gate.release()
        self._given = False
        started = time.monotonic()
        try:
            item = self._take(started)
        finally:
            self.wait_seconds += time.monotonic() - started
        if isinstance(item, BaseException):
            self.close()
            raise item
        self._next, self._given = self._next + 1, True
        return self._batch(*item)

    def measures(self) -> FeedMeasures:
        """What the feed has done so far, and what it cost."""
        seconds = dict(zip(PARTS, self._ring.seconds.sum(axis=0).tolist(), strict=True))
        return FeedMeasures(
            wait_seconds=self.wait_seconds,
            images=self._images_given,
            seconds=seconds,
            restarts=self._source.restarts,
            skipped=self._skipped,
            memory_bytes=self._ring.nbytes,
            workers=self._workers,
        )

    def close(self) -> None:
        """Stop the thread and the worker processes, and wait for them; may be called again."""
        self._gate.stop()
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._held.close()

    def _open_source(self, config: Config, part: tuple[int, int], shared: int | None) -> Source:
        data, workers = config.data, config.data.workers
        if workers == 0:
            images = self.images if shared is None else open_dataset(data, "train", shared)
            maker = partial(ChunkMaker, data, config.num_views, config.seed, images, self._ring, worker=0)
            return Local(self._batch_plan, self._gate, maker)
        processes = 1 if config.in_one_process else len(members(config))
        allowed = allowed_cores() if data.affinity else set()
        # The feeds of other replicas may be on this host too.
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
        return Pool(self._batch_plan, self._gate, self._ring, starts, self.images.name_of)

    def _take(self, started: float) -> tuple[BatchTask, list[Replacement]] | BaseException:
        seen, since = self._progress(), started
        while True:
            if self._gate.stopped:
                raise TrainingError("the feed is closed and gives no more batches")
            with suppress(queue.Empty):
                return self._ready.get(timeout=POLL_SECONDS)
            if (progress := self._progress()) != seen:
                seen, since = progress, time.monotonic()
            idle = time.monotonic() - since
            starting = self._source.starts < max(self._workers, 1) + self._source.restarts
            if idle > (max(self._timeout, START_SECONDS) if starting else self._timeout):
                raise TrainingError(self._stuck(idle))

    def _progress(self) -> tuple[int, int]:
        return self._ring.made, self._source.starts

    def _stuck(self, idle: float) -> str:
        at = [f"'{self.images.name_of(index)}'" for index in self._ring.current()]
        where = f", held up by image {' and '.join(at)}" if at else ""
        return (
            f"the feed produced nothing for {idle:.0f} s while step {self._next} waited for its batch{where}. "
            "Check that the data can be read; link.timeout sets how long to wait"
        )

    def _run(self) -> None:
        try:
            with self._source as source:
                given = 0.0
                for item in source.made():
                    # Of batches that are made side by side, each counts from when the one before was done.
                    self.trace.took(MAKING, "make batch", max(source.began, given), item[0].step)
                    given = time.monotonic()
                    self._ready.put(item)
        except OnwardError as error:
            # The traceback would keep everything alive that it went through for as long as the error is.
            error.__context__ = None
            self._ready.put(error.with_traceback(None))
        except BaseException as error:
            self._ready.put(error)

    def _batch(self, work: BatchTask, stand_ins: Sequence[Replacement]) -> FeedBatch:
        views = self._batch_plan.layout(work).tensor(self._ring.slot(work.slot))
        self._images_given += len(work.samples)
        self._skipped += len(stand_ins)
        for stand_in in stand_ins:
            if stand_in.index not in self._known:
                self._known.add(stand_in.index)
                other = self.images.name_of(stand_in.other)
                _log.warning("%s. In its place '%s' is taken (data.on_error: skip)", stand_in.why, other)
        labels = None
        if self._labels is not None:
            shown = work.samples.copy()
            shown[[stand_in.row for stand_in in stand_ins]] = [stand_in.other for stand_in in stand_ins]
            labels = self._labels[shown]
        return FeedBatch(work.step, work.epoch, work.step == self.total_steps - 1, views, work.samples, labels)


def _share(data: DataConfig, images: ImageDataset) -> int | None:
    """A descriptor of the data set for others to open it by; None where nobody needs one."""
    if not data.workers and not data.in_memory:
        return None
    if data.in_memory:
        _log.info("reading all files of the data set into memory (data.in_memory)")
    return share(images, data.in_memory)
