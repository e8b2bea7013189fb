"""Makes batches by worker processes or in the calling thread; replaces worker processes that die.

Chunks of the oldest batch are assigned first, one by one to free workers, so that a slow image delays one worker and
not the batch. A chunk that is lost with its worker is made again, with bit-identical results.
"""

from __future__ import annotations

import selectors
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from pipeline.errors import TrainingError, UserError
from workers.control.start_messages import FeedWorkerStart
from workers.feed.backpressure import POLL_SECONDS, SlotCredits
from workers.feed.batch_plan import BatchPlan, BatchTask, Chunk
from workers.feed.ring import IDLE, Ring
from workers.feed.view_worker import ChunkMaker, Replacement, Stopped
from workers.feed.worker_process import Worker, describe_exit
from workers.run.closable import Closable

AHEAD = 2
"""Chunks assigned to a worker at a time, so that it does not wait for the next."""
DEATHS = 3
"""The feed fails after so many deaths of workers without a finished chunk in between."""

MadeBatch = tuple[BatchTask, list[Replacement]]
"""A batch that is complete in its slot, and the images that were replaced in it."""


class BatchSource(Closable):
    """Makes batches; used by the thread of the feed."""

    restarts: int
    """Number of workers that died and were replaced."""
    starts: int
    """Number of workers that have become ready."""
    started_at: float
    """When the work on the last yielded batch began, by `time.monotonic`."""

    @abstractmethod
    def batches(self) -> Iterator[MadeBatch]:
        """The batches in order, each as soon as it is complete; ends early when the consumer stops the feed."""


class LocalSource(BatchSource):
    """Makes batches in the calling thread (`data.workers: 0`)."""

    def __init__(self, batch_plan: BatchPlan, credits: SlotCredits, maker: Callable[[], ChunkMaker]) -> None:
        self._batch_plan, self._credits, self._maker = batch_plan, credits, maker
        self.restarts, self.starts, self.started_at = 0, 1, 0.0

    def close(self) -> None:
        """Nothing is held."""

    def batches(self) -> Iterator[MadeBatch]:
        """See `BatchSource.batches`; raises what a `ChunkMaker` does, but for `Stopped`."""
        maker, credits = self._maker(), self._credits
        for number, step in enumerate(self._batch_plan.steps()):
            if not credits.wait(number):
                return
            self.started_at = time.monotonic()
            task = self._batch_plan.task(step)
            replaced = []
            for chunk in task.chunks(self._batch_plan.chunk_rows(task, 1)):
                try:
                    replaced += maker.make(chunk, lambda: credits.stopped)
                except Stopped:
                    return
            yield task, replaced


class WorkerPool(BatchSource):
    """Makes batches by worker processes.

    Args:
        batch_plan: the tasks.
        credits: says when.
        ring: shared memory of the batches.
        starts: what each worker is started with.
        name_of: returns the name of an image, by its index.
    """

    def __init__(
        self,
        batch_plan: BatchPlan,
        credits: SlotCredits,
        ring: Ring,
        starts: Sequence[FeedWorkerStart],
        name_of: Callable[[int], str],
    ) -> None:
        self._batch_plan, self._credits, self._ring = batch_plan, credits, ring
        self._starts, self._name_of = starts, name_of
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []
        self._queued: deque[Chunk] = deque()
        self._in_progress: deque[tuple[BatchTask, list[Replacement]]] = deque()
        self._chunks_left: dict[int, int] = {}
        """Number of unfinished chunks, by step."""
        self._begun_at: dict[int, float] = {}
        """When the work on a step began."""
        self._deaths = 0
        self.restarts = self.starts = 0
        self.started_at = 0.0

    def close(self) -> None:
        """End all worker processes."""
        for worker in self._workers:
            worker.close_pipe()
        for worker in self._workers:
            worker.close()
        self._selector.close()

    def batches(self) -> Iterator[MadeBatch]:
        """See `BatchSource.batches`.

        Raises:
            UserError: an image cannot be decoded, or a worker cannot open the data set.
            TrainingError: workers died repeatedly, or one failed for another reason than the data.
        """
        self._selector.register(self._credits, selectors.EVENT_READ)
        for number in range(len(self._starts)):
            self._start_worker(number)
        not_begun = deque(self._batch_plan.steps())
        while not_begun or self._in_progress:
            while not_begun and self._credits.is_open(not_begun[0] - self._batch_plan.start_step):
                self._begin_batch(not_begun.popleft())
            self._assign_chunks()
            for key, _ in self._selector.select(POLL_SECONDS):
                if key.fileobj is self._credits:
                    self._credits.clear()
                else:
                    self._read_answers(key.data)
            if self._credits.stopped:
                return
            while self._in_progress and not self._chunks_left[self._in_progress[0][0].step]:
                task, replaced = self._in_progress.popleft()
                del self._chunks_left[task.step]
                self.started_at = self._begun_at.pop(task.step)
                yield task, sorted(replaced, key=lambda replacement: replacement.row)

    def _start_worker(self, number: int) -> None:
        self._ring.start_image(number, IDLE)
        try:
            worker = Worker(self._starts[number])
        except OSError as error:
            raise TrainingError(
                f"feed worker {number + 1} cannot be started ({error.strerror}). Lower data.workers"
            ) from None
        self._workers[number : number + 1] = [worker]
        self._selector.register(worker, selectors.EVENT_READ, worker)

    def _begin_batch(self, step: int) -> None:
        task = self._batch_plan.task(step)
        chunks = list(task.chunks(self._batch_plan.chunk_rows(task, len(self._workers))))
        self._in_progress.append((task, []))
        self._chunks_left[step] = len(chunks)
        self._begun_at[step] = time.monotonic()
        self._queued += chunks

    def _assign_chunks(self) -> None:
        """Assign one chunk to each worker before any gets a second, so that all work on the same batch."""
        for load in range(AHEAD):
            for worker in self._workers:
                if self._queued and worker.ready and len(worker.outstanding) == load:
                    worker.assign(self._queued.popleft())

    def _read_answers(self, worker: Worker) -> None:
        for answer in worker.answers():
            if "failed" in answer:
                raise self._worker_error(worker, answer["failed"], answer["bad_input"])
            if "ready" in answer:
                worker.ready = True
                self.starts += 1
                continue
            chunk = worker.outstanding.popleft()
            replaced = next(found for task, found in self._in_progress if task.step == chunk.step)
            replaced += [Replacement(*values) for values in answer["done"]]
            self._chunks_left[chunk.step] -= 1
            self._deaths = 0
        if worker.ended:
            self._replace(worker)

    def _worker_error(self, worker: Worker, text: str, bad_input: bool) -> Exception:
        if bad_input:
            return UserError(text)
        return TrainingError(f"feed worker {worker.number + 1} failed{self._current_image(worker)}: {text}")

    def _replace(self, worker: Worker) -> None:
        self._selector.unregister(worker)
        code = worker.close()
        self._deaths += 1
        if self._deaths >= DEATHS:
            last = f"the last{self._current_image(worker)}: {describe_exit(code)}"
            raise TrainingError(f"feed workers died {DEATHS} times in a row; {last}")
        self._queued = deque(sorted([*worker.outstanding, *self._queued]))
        self.restarts += 1
        self._start_worker(worker.number)

    def _current_image(self, worker: Worker) -> str:
        at = self._ring.current(worker.number)
        return f" at image '{self._name_of(at[0])}'" if at else ""
