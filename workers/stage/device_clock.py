"""Where the time of a training process goes, by the clock of its device: laps that follow each other without a gap.

Work for a GPU is launched and done later. By the host's clock a forward pass would take as long as its launch, and the
wait for its kernels would be part of whatever waits for them first. So a lap ends when the device gets there:

    host      launch forward |  wait for room           | copy, and wait for it    |
    device    forward pass                    |  idle   | copy                     |
    laps      computing                       |  room   | copying                  |

The ends are events in the stream of the device, which are asked whether it has reached them and never waited for: a lap
that has not ended yet is reported with the next step. A CPU has done all of its work
when a call returns, so a lap ends at once; its events could not be recorded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch

from workers.control.shares import Share
from workers.control.step_report import StageTimes

MILLISECOND = 1e-3


class DeviceEvent(Protocol):
    """A point in the work of a device, as `torch.cuda.Event`."""

    def query(self) -> bool:
        """Whether the device has reached it; does not block."""
        ...

    def synchronize(self) -> None:
        """Wait until it has."""
        ...

    def elapsed_time(self, end_event: DeviceEvent) -> float:
        """Milliseconds of the device from here to a later point; both were reached."""
        ...


class Mark(NamedTuple):
    """A point in the work of a process.

    Args:
        issued: when the host got there, by its clock.
        event: where the device has to get; None if it is there when the host is.
    """

    issued: float
    event: DeviceEvent | None = None

    def reached(self) -> bool:
        """Whether the device has done all that was launched before; may be asked in any thread."""
        return self.event is None or self.event.query()


class Lap(NamedTuple):
    """What the time up to `end` was spent on: `times` gets it as `share`, or nobody does."""

    times: StageTimes | None
    share: Share
    end: Mark
    booked: Callable[[float, float], None] | None


@dataclass
class DeviceClock:
    """The laps of one thread that launches work, in order.

    Args:
        record: makes an event at the end of what was launched so far; None for a device that lags behind nobody.
        now: the host's clock, in seconds.
    """

    record: Callable[[], DeviceEvent] | None = None
    _: KW_ONLY
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._open: deque[Lap] = deque()
        self._last = Mark(self.now())
        self._last_at = self._last.issued

    @classmethod
    def of(cls, device: torch.device) -> DeviceClock:
        """The clock for what this thread launches on `device`, in its current stream."""
        return cls(partial(_CudaEvent, device) if device.type == "cuda" else None)

    @property
    def lags(self) -> bool:
        """Whether the device does its work later than the host launches it."""
        return self.record is not None

    def start(self) -> Mark:
        """Begin the first lap, as soon as the device is idle; returns where."""
        event = self._mark().event
        if event is not None:
            event.synchronize()
        self._open.clear()
        self._last = Mark(self.now(), event)
        self._last_at = self._last.issued
        return self._last

    def lap(
        self, times: StageTimes | None, share: Share = "busy", booked: Callable[[float, float], None] | None = None
    ) -> Mark:
        """End a lap here, and begin the next.

        Args:
            times: of the stage whose time it was; None leaves it out.
            share: what it was spent on.
            booked: called with its beginning and end by the clock of the host, as soon as the device has got there.

        Returns:
            Where it ends.
        """
        mark = self._mark()
        self._open.append(Lap(times, share, mark, booked))
        self.settle()
        return mark

    def settle(self) -> None:
        """Book all laps whose end the device has reached; does not wait for others."""
        while self._open and self._open[0].end.reached():
            lap = self._open.popleft()
            began, self._last_at = self._last_at, self._time_of(lap.end)
            self._last = lap.end
            if lap.times is not None:
                lap.times.add(lap.share, self._last_at - began)
            if lap.booked is not None:
                lap.booked(began, self._last_at)

    def _mark(self) -> Mark:
        return Mark(self.now(), None if self.record is None else self.record())

    def _time_of(self, mark: Mark) -> float:
        """By the host's clock. Two clocks drift apart, so it is held between the launch and now."""
        if mark.event is None or self._last.event is None:
            return mark.issued
        at = self._last_at + MILLISECOND * self._last.event.elapsed_time(mark.event)
        return min(max(at, mark.issued), self.now())


class _CudaEvent:
    """Recorded in the current stream of a GPU; may be asked in a thread that has used no GPU before."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self.event.record(torch.cuda.current_stream(device))

    def query(self) -> bool:
        # A thread without a device would make a context on the first one, which costs its memory.
        with torch.cuda.device(self._device):
            return bool(self.event.query())

    def synchronize(self) -> None:
        self.event.synchronize()

    def elapsed_time(self, end_event: DeviceEvent) -> float:
        assert isinstance(end_event, _CudaEvent)
        return float(self.event.elapsed_time(end_event.event))
