"""A clock and the stream of a device that tests move: work is done when its time has come, as on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import torch

from pipeline.stage.stage import Stage
from workers.stage.device_clock import DeviceClock, DeviceEvent

START = 1000.0


@dataclass
class Time:
    """The clock of the host; only tests move it."""

    now: float = START

    def __call__(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Stream:
    """A queue of kernels, each of which begins when the one before is done; what launches them goes on at once.

    Its own clock shows another time than that of the host, and runs `drift` times as fast.
    """

    time: Time
    drift: float = 1.0
    idle_at: float = field(default=0.0)
    """When all that was launched is done, by the clock of the host."""

    def launch(self, seconds: float) -> None:
        self.idle_at = max(self.idle_at, self.time.now) + seconds

    def synchronize(self) -> None:
        """Wait until the queue is empty, as a copy to the host does."""
        assert self.idle_at < inf, "it would wait for ever"
        self.time.now = max(self.time.now, self.idle_at)

    def wait(self, point: Point) -> None:
        """What is launched next begins when another stream has got there."""
        self.idle_at = max(self.idle_at, point.at)

    def record(self) -> Point:
        return Point(self, max(self.idle_at, self.time.now))

    def clock(self) -> DeviceClock:
        return DeviceClock(self.record, now=self.time)


@dataclass
class Point:
    """An event of a `Stream`."""

    stream: Stream
    at: float

    def query(self) -> bool:
        return self.stream.time.now >= self.at

    def synchronize(self) -> None:
        self.stream.time.now = max(self.stream.time.now, self.at)

    def elapsed_time(self, end_event: DeviceEvent) -> float:
        assert isinstance(end_event, Point)
        assert self.query(), "as CUDA's refuse what has not happened yet"
        assert end_event.query(), "as CUDA's refuse what has not happened yet"
        return 1000 * self.stream.drift * (end_event.at - self.at)


def launched_on(stream: Stream, stage: Stage, forward: float, backward: float) -> Stage:
    """The stage; its passes take so long on `stream` and return at once, and the step waits where it reads the loss.

    The optimizer's kernels take as long as the backward pass.
    """
    read, step = stage.read_loss, stage.engine.step

    def read_loss() -> tuple[float, dict[str, float]]:
        stream.launch(backward)
        stream.synchronize()
        return read()

    def step_engine() -> bool:
        stream.launch(backward)
        return step()

    def launch(*_: object) -> None:
        stream.launch(forward)

    stage.register_forward_hook(launch)
    stage.read_loss = read_loss  # type: ignore[method-assign]
    stage.engine.step = step_engine  # type: ignore[method-assign]
    return stage


def batches(count: int, size: int = 16) -> list[torch.Tensor]:
    """Images for stage 1 of `small_config`, bytes `[2, 8, S, S, 3]` each."""
    return [torch.zeros((2, 8, size, size, 3), dtype=torch.uint8) for _ in range(count)]
