"""Copies that overlap computing: where the time of a stage goes whose input is copied to its device one batch ahead."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.stage.stage import Stage
from tests.pipeline.small import small_config
from tests.waiting import wait_until
from tests.workers.stage.streams import START, Point, Stream, Time, batches, launched_on
from tests.workers.stage.test_worker import ADDRESS, BACKWARD, FORWARD, STEPS, Reports, worker_of
from workers.feed.ahead import AheadReceiver
from workers.links.base import LinkTimeout, Receiver
from workers.links.messages import Header, Message, TensorSpec
from workers.observing.observer import TIMES

IMAGES = batches(STEPS)


class Copies:
    """A copy stream beside that of the steps; a copy takes `seconds`."""

    def __init__(self, compute: Stream, seconds: float) -> None:
        self._compute, self._copying, self._seconds = compute, Stream(compute.time), seconds
        self.count = 0

    def pinned(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    on_device = pinned

    def in_thread(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def copy(self, target: torch.Tensor, source: torch.Tensor, after: Any) -> Point:
        if after is not None:
            self._copying.wait(after)
        self._copying.launch(self._seconds)
        target.copy_(source)
        self.count += 1
        return self._copying.record()

    def launched(self) -> Point:
        return self._compute.record()

    def wait(self, event: Any) -> None:
        self._compute.wait(event)


class Link(Receiver):
    """Has a batch whenever `there` says so."""

    def __init__(self) -> None:
        super().__init__(ADDRESS, TensorSpec(tuple(IMAGES[0].shape), torch.uint8))
        self.there, self._steps = threading.Semaphore(1), iter(range(STEPS))

    def recv(self, timeout: float) -> Message:
        if not self.there.acquire(timeout=timeout):
            raise LinkTimeout("nothing")
        step = next(self._steps)
        return Message(Header(step, 0, (0.0,) * 4, last=step == STEPS - 1), IMAGES[step])

    def waiting(self) -> int:
        return 0

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("copy", "seen"), [(2.0, 0.0), (FORWARD + 2 * BACKWARD + 3.0, 3.0)], ids=["short", "long"])
def test_what_is_copied_while_the_device_computes_is_computing(tmp_path: Path, copy: float, seen: float) -> None:
    """Only what is left of a copy when the step before has ended is copying; the shares have all of the time."""
    time = Time()
    stream = Stream(time)
    stage = launched_on(stream, Stage(small_config(), 1, 4), FORWARD, BACKWARD)
    link, copies, clock, steps = Link(), Copies(stream, copy), stream.clock(), iter(range(1, STEPS))

    def next_batch_comes(*_: object) -> None:
        """Before the forward pass; its copy is launched before the loss of this step is waited for."""
        if (step := next(steps, None)) is not None:
            link.there.release()
            wait_until(lambda: copies.count > step)

    stage.register_forward_pre_hook(next_batch_comes)
    with AheadReceiver(link, copies) as receiver:
        worker = worker_of(stage, receiver, None, Reports(), clock, tmp_path)
        worker.run()
    stream.synchronize()
    clock.settle()
    times = worker._times[1]
    assert times.copying == copy + (STEPS - 1) * seen, "all of the first, and what is left of the others"
    assert times.busy == STEPS * (FORWARD + 2 * BACKWARD)
    assert sum(getattr(times, name) for name in TIMES) == time.now - START
