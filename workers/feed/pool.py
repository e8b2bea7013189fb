"""The worker processes of a feed: who makes what, and who takes over from those that die.

The oldest batch goes first: a free worker gets the next piece of it, so that one slow image holds up one worker
and not the batch. A piece that is lost with its worker is made again, to the same bits.
"""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from pipeline.errors import TrainingError, UserError
from workers.control.start_messages import FeedWorkerStart
from workers.feed.backpressure import POLL_SECONDS, SlotCredits
from workers.feed.batch_plan import BatchPlan, BatchTask, Chunk
from workers.feed.ring import NOTHING, Ring
from workers.feed.view_worker import ChunkMaker, Replacement, Stopped
from workers.feed.worker_process import Worker, how

AHEAD = 2
"""Pieces that a worker is given at a time, so that it need not wait for the next."""
DEATHS = 3
"""Workers that may die in a row without one piece being made in between."""

Made = tuple[BatchTask, list[Replacement]]
"""A batch whose views are in its slot, and the images for which others stand in."""


class Source(Protocol):
    """Who makes the batches; entered and iterated over by the thread of the feed."""

    restarts: int
    """Workers that died and were replaced."""
    starts: int
    """Workers that have become ready."""
    began: float
    """When the making of the batch began that was given last, by `time.monotonic`."""

    def made(self) -> Iterator[Made]:
        """The batches in order, each as soon as it is complete; ends early if the gate stops it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Local:
    """Makes the batches in the thread that asks for them (`data.workers: 0`)."""

    def __init__(self, batch_plan: BatchPlan, gate: SlotCredits, maker: Callable[[], ChunkMaker]) -> None:
        self._batch_plan, self._gate, self._maker = batch_plan, gate, maker
        self.restarts, self.starts, self.began = 0, 1, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def made(self) -> Iterator[Made]:
        """See `Source.made`; raises what a `ChunkMaker` does, but for `Stopped`."""
        maker, gate = self._maker(), self._gate
        for number, step in enumerate(self._batch_plan.steps()):
            if not gate.wait(number):
                return
            self.began = time.monotonic()
            work = self._batch_plan.work(step)
            stand_ins = []
            for chunk in work.chunks(self._batch_plan.chunk_rows(work, 1)):
                try:
                    stand_ins += maker.make(chunk, lambda: gate.stopped)
                except Stopped:
                    return
            yield work, stand_ins


class Pool:
    """Has the batches made by worker processes.

    Args:
        agenda: what there is to make.
        gate: says when.
        ring: where it goes.
        starts: what each worker is started with.
        name_of: an image in words.
    """

    def __init__(
        self,
        batch_plan: BatchPlan,
        gate: SlotCredits,
        ring: Ring,
        starts: Sequence[FeedWorkerStart],
        name_of: Callable[[int], str],
    ) -> None:
        self._batch_plan, self._gate, self._ring = batch_plan, gate, ring
        self._starts, self._name_of = starts, name_of
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []
        self._waiting: deque[Chunk] = deque()
        self._begun: deque[tuple[BatchTask, list[Replacement]]] = deque()
        self._left: dict[int, int] = {}
        """Pieces that are still to be made, by step."""
        self._since: dict[int, float] = {}
        """When they were begun, by step."""
        self._deaths = 0
        self.restarts = self.starts = 0
        self.began = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.close()
        self._selector.close()

    def made(self) -> Iterator[Made]:
        """See `Source.made`.

        Raises:
            UserError: an image cannot be decoded, or a worker cannot open the data set.
            TrainingError: workers die one after the other, or one met an error that is not the data's.
        """
        self._selector.register(self._gate, selectors.EVENT_READ)
        for number in range(len(self._starts)):
            self._start_worker(number)
        unbegun = deque(self._batch_plan.steps())
        while unbegun or self._begun:
            while unbegun and self._gate.is_open(unbegun[0] - self._batch_plan.start_step):
                self._begin(unbegun.popleft())
            self._hand_out()
            for key, _ in self._selector.select(POLL_SECONDS):
                if key.fileobj is self._gate:
                    self._gate.clear()
                else:
                    self._hear(key.data)
            if self._gate.stopped:
                return
            while self._begun and not self._left[self._begun[0][0].step]:
                work, stand_ins = self._begun.popleft()
                del self._left[work.step]
                self.began = self._since.pop(work.step)
                yield work, sorted(stand_ins, key=lambda stand_in: stand_in.row)

    def _start_worker(self, number: int) -> None:
        self._ring.begin(number, NOTHING)
        try:
            worker = Worker(self._starts[number])
        except OSError as error:
            raise TrainingError(
                f"feed worker {number + 1} cannot be started ({error.strerror}). Lower data.workers"
            ) from None
        self._workers[number : number + 1] = [worker]
        self._selector.register(worker, selectors.EVENT_READ, worker)

    def _begin(self, step: int) -> None:
        work = self._batch_plan.work(step)
        chunks = list(work.chunks(self._batch_plan.chunk_rows(work, len(self._workers))))
        self._begun.append((work, []))
        self._left[step] = len(chunks)
        self._since[step] = time.monotonic()
        self._waiting += chunks

    def _hand_out(self) -> None:
        """One piece each before anybody gets a second, so that all work on the same batch."""
        for load in range(AHEAD):
            for worker in self._workers:
                if self._waiting and worker.ready and len(worker.outstanding) == load:
                    worker.give(self._waiting.popleft())

    def _hear(self, worker: Worker) -> None:
        for word in worker.answers():
            if "failed" in word:
                raise self._failure(worker, word["failed"], word["bad_input"])
            if "ready" in word:
                worker.ready = True
                self.starts += 1
                continue
            chunk = worker.outstanding.popleft()
            stand_ins = next(found for work, found in self._begun if work.step == chunk.step)
            stand_ins += [Replacement(*values) for values in word["done"]]
            self._left[chunk.step] -= 1
            self._deaths = 0
        if worker.ended:
            self._replace(worker)

    def _failure(self, worker: Worker, text: str, bad_input: bool) -> Exception:
        if bad_input:
            return UserError(text)
        return TrainingError(f"feed worker {worker.number + 1} failed{self._at(worker)}: {text}")

    def _replace(self, worker: Worker) -> None:
        self._selector.unregister(worker)
        code = worker.close()
        self._deaths += 1
        if self._deaths >= DEATHS:
            raise TrainingError(f"feed workers died {DEATHS} times in a row; the last{self._at(worker)}: {how(code)}")
        self._waiting = deque(sorted([*worker.outstanding, *self._waiting]))
        self.restarts += 1
        self._start_worker(worker.number)

    def _at(self, worker: Worker) -> str:
        at = self._ring.current(worker.number)
        return f" at image '{self._name_of(at[0])}'" if at else ""
