"""Records what a process does as slices of time, in its own part of the run's trace.

Every process writes a file of its own below `RUN/trace/`, so that none waits for another, and a process that is killed
loses at most its last second. `trace_file` joins the files. Without `trace.enabled` no file is made and the methods
below do nothing.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.config.observing import TraceConfig
from pipeline.errors import UserError
from workers.observing.trace_part import COORDINATOR_UNIT, Count, PartHeader, Slice, lines_of, new_part
from workers.run.files import RunDir
from workers.topology.processes import COORDINATOR, TrainingProcess, stage_name

if TYPE_CHECKING:  # a worker of the feed needs no network, and is ready two seconds sooner without torchvision's
    from pipeline.stage.stage import Stage

FLUSH_EVENTS = 512
FLUSH_SECONDS = 1.0
"""Events are flushed when there are this many, or when the oldest is this old."""
MAKING = "batches"
"""The track of the thread that makes batches."""
FEED = "feed"
"""The track of the thread that waits for images and sends them."""
SERIAL = "serial run"
_log = logging.getLogger(__name__)
_NOTHING = nullcontext()


class Tracer(Protocol):
    """Interface of a tracer; its methods return at once."""

    def at(self, step: int) -> None:
        """Set the step of what follows."""
        ...

    def took(self, track: str, what: str, since: float, step: int | None = None) -> None:
        """Record a slice from `since` (`time.monotonic`) until now on a track.

        `step` is given by threads other than that of `at`.
        """
        ...

    def lasted(self, track: str, what: str, step: int | None, since: float, until: float) -> None:
        """Record a slice that is known only later: from `since` until `until` (`time.monotonic`)."""
        ...

    def span(self, track: str, what: str) -> AbstractContextManager[None]:
        """Record a slice for the duration of the context."""
        ...

    def count(self, track: str, what: str, value: float) -> None:
        """Record a counter value."""
        ...

    def watch(self, stage: Stage) -> None:
        """Record the forward pass of a stage and the parts of its update."""
        ...

    def close(self) -> None:
        """Write the rest; may be called again."""
        ...


class NoTracer:
    """Records nothing."""

    def at(self, step: int) -> None:
        """See `Tracer.at`."""

    def took(self, track: str, what: str, since: float, step: int | None = None) -> None:
        """See `Tracer.took`."""

    def lasted(self, track: str, what: str, step: int | None, since: float, until: float) -> None:
        """See `Tracer.lasted`."""

    def span(self, track: str, what: str) -> AbstractContextManager[None]:
        """See `Tracer.span`."""
        return _NOTHING

    def count(self, track: str, what: str, value: float) -> None:
        """See `Tracer.count`."""

    def watch(self, stage: Stage) -> None:
        """See `Tracer.watch`."""

    def close(self) -> None:
        """See `Tracer.close`."""


NO_TRACE = NoTracer()


class PartTracer:
    """Writes a part of a trace. A full disk ends the trace, not the run.

    Args:
        settings: how much to keep, and from which step on.
        run: whose trace it is.
        header: of the process.

    Raises:
        UserError: the file cannot be made.
    """

    def __init__(self, settings: TraceConfig, run: RunDir, header: PartHeader) -> None:
        self._settings, self._room, self._left_out = settings, settings.max_events, 0
        self._step: int | None = None
        self._events: list[Slice | Count] = []
        self._written = time.monotonic()
        self._lock = threading.Lock()
        try:
            self._file = new_part(run.trace, header.name)
        except OSError as error:
            problem = f"'{run.trace}' cannot be written ({error.strerror})"
            raise UserError(f"{problem}. Make room there, or give trace=false") from None
        self._write([json.dumps(header.to_json()) + "\n"])

    def at(self, step: int) -> None:
        """See `Tracer.at`."""
        self._step = step

    def took(self, track: str, what: str, since: float, step: int | None = None) -> None:
        """See `Tracer.took`."""
        start, own = round(since * 1e9), self._step if step is None else step
        self._add(Slice(track, what, start, max(time.monotonic_ns() - start, 0), own), own)

    def lasted(self, track: str, what: str, step: int | None, since: float, until: float) -> None:
        """See `Tracer.lasted`."""
        start = round(since * 1e9)
        self._add(Slice(track, what, start, max(round(until * 1e9) - start, 0), step), step)

    @contextmanager
    def span(self, track: str, what: str) -> Iterator[None]:
        """See `Tracer.span`."""
        start = time.monotonic_ns()
        try:
            yield
        finally:
            self._add(Slice(track, what, start, time.monotonic_ns() - start, self._step), self._step)

    def count(self, track: str, what: str, value: float) -> None:
        """See `Tracer.count`."""
        self._add(Count(track, what, time.monotonic_ns(), value), self._step)

    def watch(self, stage: Stage) -> None:
        """See `Tracer.watch`."""
        track = stage_name(stage.index)
        stage.span = partial(self.span, track)
        began = [0.0]

        def begin(*_: Any) -> None:
            began[0] = time.monotonic()

        stage.register_forward_pre_hook(begin)
        stage.register_forward_hook(lambda *_: self.took(track, "forward", began[0]))

    def close(self) -> None:
        """See `Tracer.close`."""
        with self._lock:
            self._flush()
            with suppress(OSError):
                self._file.close()

    def _add(self, event: Slice | Count, step: int | None) -> None:
        if (step or 0) < self._settings.from_step:
            return
        with self._lock:
            if not self._room:
                self._left_out += 1
                if self._left_out == 1:
                    self._flush()
                return
            self._room -= 1
            self._events.append(event)
            if len(self._events) >= FLUSH_EVENTS or time.monotonic() - self._written > FLUSH_SECONDS:
                self._flush()

    def _flush(self) -> None:
        lines, self._events = list(lines_of(self._events)), []
        if self._left_out:
            lines.append(json.dumps({"left_out": self._left_out}) + "\n")
        self._write(lines)

    def _write(self, lines: list[str]) -> None:
        self._written = time.monotonic()
        if self._file.closed:
            return
        try:
            self._file.writelines(lines)
            self._file.flush()
        except OSError as error:
            _log.warning("the trace ends here: '%s' cannot be written (%s)", self._file.name, error.strerror)
            self._room = 0
            with suppress(OSError):
                self._file.close()


def trace_of_member(settings: TraceConfig, run: RunDir, member: TrainingProcess) -> Tracer:
    """The tracer of a training process; raises as `PartTracer`."""
    if not settings.enabled:
        return NO_TRACE
    header = PartHeader.of_this_process(member.name, member.stage_group, member.stages, member.replica, member.replicas)
    return PartTracer(settings, run, header)


def trace_of_coordinator(settings: TraceConfig, run: RunDir) -> Tracer:
    """The tracer of the coordinator; raises as `PartTracer`."""
    if not settings.enabled:
        return NO_TRACE
    return PartTracer(settings, run, PartHeader.of_this_process(COORDINATOR, COORDINATOR_UNIT, ()))


def trace_of_serial(settings: TraceConfig, run: RunDir, stages: int) -> Tracer:
    """The tracer of a run in one process; raises as `PartTracer`."""
    if not settings.enabled:
        return NO_TRACE
    return PartTracer(settings, run, PartHeader.of_this_process(SERIAL, 0, tuple(range(1, stages + 1))))
