"""The batches of a run, augmented ahead of time, in the order of the plan, from any step on.

A thread keeps two batches ready. It augments them itself (`data.workers: 0`) or joins what worker
processes augmented; every view is a function of (seed, epoch, image, view), so the batches are the
same bits for any number of workers. What goes wrong anywhere reaches the consumer as one error.
"""

from __future__ import annotations

import queue
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from pipeline.config import Config
from pipeline.data.augment import make_views
from pipeline.data.datasets import ImageDataset, open_dataset
from pipeline.data.sampler import StepPlan
from pipeline.errors import OnwardError, TrainingError, UserError

BATCHES_AHEAD = 2
POLL_SECONDS = 0.25
"""How soon the thread notices that it should stop, or that a worker died."""
DEATH_SECONDS = 5.0
"""How long to ask which worker died before its death is reported without a name."""
CLOSE_SECONDS = 20.0
"""Far above what stopping takes; a thread that needs longer is left behind (it is a daemon)."""
CHUNK_ROWS = 64
"""Most images that a worker process augments at once; bounds how long `close` waits for it."""


@dataclass(frozen=True)
class FeedBatch:
    """One step's input: `views` is uint8, `[V, B, 3, S, S]`, view 1 first; `last` says that no batch follows.

    `labels` are the classes of the images, `[B]`, if a loss uses them, else None.
    """

    step: int
    epoch: int
    last: bool
    views: torch.Tensor
    labels: NDArray[np.int64] | None = None


Key = tuple[int, int, int]
"""Step, first row, end row."""


class Chunks(Dataset[torch.Tensor | str]):
    """Rows of a batch, augmented; what the worker processes serve.

    Indexing gives uint8 `[V, rows, 3, S, S]`, or the text of a `UserError`: an exception raised in a
    worker would reach the user with the traceback of two processes.
    """

    def __init__(self, config: Config, images: ImageDataset, plan: StepPlan) -> None:
        self.config, self.images, self.plan = config, images, plan
        self.num_views = config.num_views

    def __getitem__(self, key: Key) -> torch.Tensor | str:
        try:
            return self.augment(key)
        except UserError as error:
            return str(error)

    def augment(self, key: Key, stop: threading.Event | None = None) -> torch.Tensor:
        """Augment the rows; raises `UserError` naming an undecodable file, and `Stopped` soon after `stop` is set."""
        step, start, end = key
        epoch, indices = self.plan.batch(step)
        data, count = self.config.data, self.num_views
        views = torch.empty((count, end - start, 3, data.image_size, data.image_size), dtype=torch.uint8)
        out = views.numpy()
        for row, index in enumerate(indices[start:end].tolist()):
            if stop is not None and stop.is_set():
                raise Stopped
            image = self.images.image(index)
            make_views(image, data.augment, data.image_size, count, self.config.seed, epoch, index, out=out[:, row])
        return views


class Stopped(Exception):
    """The feed was closed; ends the thread and is never seen outside of it."""


class Feed:
    """Iterates over the batches of the steps `start_step` to `total_steps - 1`; a context manager.

    At most two batches wait; the thread then blocks until one is taken. `close` throws the rest away.

    Args:
        config: the run; `link.timeout` is how many seconds the feed may make no progress.
        start_step: the first step, counted from 0.

    Raises:
        UserError: the data set cannot be opened, or (while iterating) an image cannot be decoded.
        TrainingError: while iterating: a worker process died, or nothing was produced in time.
    """

    def __init__(self, config: Config, start_step: int = 0) -> None:
        images = open_dataset(config.data, "train")
        data = config.data
        self._plan = StepPlan.of(config, len(images))
        self._labels = images.labels if config.uses_labels else None
        self.total_steps, self.steps_per_epoch = self._plan.total_steps, self._plan.steps_per_epoch
        self.wait_seconds = 0.0
        """How long the consumer has waited for batches."""
        self._workers, self._timeout = data.workers, config.link.timeout
        self._chunks = Chunks(config, images, self._plan)
        self._next = start_step
        self._ready: queue.Queue[FeedBatch | BaseException] = queue.Queue(BATCHES_AHEAD)
        self._stop = threading.Event()
        self._progress = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(start_step,), name="feed", daemon=True)
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
        started = time.monotonic()
        try:
            item = self._take(started)
        finally:
            self.wait_seconds += time.monotonic() - started
        if isinstance(item, BaseException):
            self.close()
            raise item
        self._next += 1
        return item

    def close(self) -> None:
        """Stop the thread and the worker processes, and wait for them; may be called again."""
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)

    def _take(self, started: float) -> FeedBatch | BaseException:
        while True:
            if self._stop.is_set():
                raise TrainingError("the feed is closed and gives no more batches")
            try:
                return self._ready.get(timeout=POLL_SECONDS)
            except queue.Empty:
                idle = time.monotonic() - max(started, self._progress)
                if idle > self._timeout:
                    raise TrainingError(
                        f"the feed produced nothing for {idle:.0f} s while step {self._next} waited for its batch. "
                        "Check that the data can be read; link.timeout sets how long to wait"
                    ) from None

    def _run(self, start_step: int) -> None:
        try:
            for batch in self._local(start_step) if self._workers == 0 else self._distributed(start_step):
                self._put(batch)
        except Stopped:
            pass
        except OnwardError as error:
            # The traceback would keep the loader, and so its processes, alive for as long as the error is.
            error.__context__ = None
            self._put_last(error.with_traceback(None))
        except BaseException as error:
            self._put_last(error)

    def _put(self, item: FeedBatch | BaseException) -> None:
        while not self._stop.is_set():
            try:
                return self._ready.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
        raise Stopped

    def _put_last(self, error: BaseException) -> None:
        with suppress(Stopped):  # then nobody listens any more
            self._put(error)

    def _batch(self, step: int, views: torch.Tensor) -> FeedBatch:
        epoch = step // self.steps_per_epoch
        labels = None if self._labels is None else self._labels[self._plan.batch(step)[1]]
        return FeedBatch(step, epoch, step == self.total_steps - 1, views, labels)

    def _local(self, start_step: int) -> Iterator[FeedBatch]:
        for step in range(start_step, self.total_steps):
            yield self._batch(step, self._augment_here(step))

    def _augment_here(self, step: int) -> torch.Tensor:
        rows = self._plan.rows(step)
        parts = []
        for start in range(0, rows, CHUNK_ROWS):
            parts.append(self._chunks.augment((step, start, min(start + CHUNK_ROWS, rows)), self._stop))
            self._progress = time.monotonic()
        return torch.cat(parts, dim=1)

    def _distributed(self, start_step: int) -> Iterator[FeedBatch]:
        """Batches are cut into chunks, the chunks dealt to the workers in turn and joined again in order."""
        chunk = min(CHUNK_ROWS, -(-self._plan.batch_size // self._workers))
        per_batch = -(-self._plan.batch_size // chunk)
        loader: DataLoader[Any] = DataLoader(
            self._chunks,
            batch_size=None,
            sampler=_Keys(self._plan, start_step, chunk),
            num_workers=self._workers,
            prefetch_factor=max(1, -(-BATCHES_AHEAD * per_batch // self._workers)),
            multiprocessing_context="spawn",
            timeout=POLL_SECONDS,
            collate_fn=_as_it_is,
            worker_init_fn=_start_worker,
        )
        chunks = iter(loader)
        for step in range(start_step, self.total_steps):
            parts = [self._receive(chunks) for _ in range(0, self._plan.rows(step), chunk)]
            yield self._batch(step, torch.cat(parts, dim=1))

    def _receive(self, chunks: Iterator[torch.Tensor | str]) -> torch.Tensor:
        broken: tuple[float, str] | None = None  # as text: an exception holds on to all it went through
        while True:
            if self._stop.is_set():
                raise Stopped
            if broken and time.monotonic() - broken[0] > DEATH_SECONDS:
                raise TrainingError(f"the connection to a feed worker broke ({broken[1]}). Start the run again")
            try:
                item = next(chunks)
            except (OSError, EOFError) as error:
                # A worker died with a finished chunk still in its hands. The chunk is lost, so the loader
                # gives out none after it, and says which process it was once the system has buried it.
                broken = broken or (time.monotonic(), str(error))
                continue
            except RuntimeError as error:
                if "timed out" in str(error):  # after POLL_SECONDS; the iterator can be asked again
                    continue
                raise _worker_death(error) from None
            self._progress = time.monotonic()
            if isinstance(item, str):
                raise UserError(item)
            return item


class _Keys:
    """The chunks of all steps in order; a sampler for `DataLoader`."""

    def __init__(self, plan: StepPlan, start_step: int, chunk: int) -> None:
        self._plan, self._start_step, self._chunk = plan, start_step, chunk

    def __iter__(self) -> Iterator[Key]:
        for step in range(self._start_step, self._plan.total_steps):
            rows = self._plan.rows(step)
            for start in range(0, rows, self._chunk):
                yield step, start, min(start + self._chunk, rows)


def _as_it_is(item: Any) -> Any:
    return item


def _start_worker(worker: int) -> None:
    # Ctrl-C goes to the whole process group; workers end when the feed closes or its process is gone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _worker_death(error: RuntimeError) -> Exception:
    """What DataLoader reports when a worker is gone, in words; any other error is a defect and stays as it is."""
    found = re.search(r"worker \(pid(?:\(s\))? ([\d, ]+)\)", str(error))
    if found is None:
        return error
    return TrainingError(
        f"feed worker (process {found[1]}) died. If nobody killed it, memory ran out (also shared memory, /dev/shm): "
        "lower data.workers or data.batch_size"
    )
