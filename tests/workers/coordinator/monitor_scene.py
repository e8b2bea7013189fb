"""A coordinator's main thread among people who do what a test tells them, by a clock of the test's own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.pipeline.small import small_config
from workers.control.channel import ControlTimeout
from workers.control.failures import FailureReport, RunFailed
from workers.coordinator.monitor import RunMonitor
from workers.run.files import RunDir

DONE = {"type": "done"}


class Clock:
    """Stands for the module `time`; passes only where the coordinator waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Control:
    """The channel to the training processes: every poll brings the next of `news`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.news: deque[list[tuple[str, Any]]] = deque()
        self.coming: list[str] = []
        self.here: set[str] = set()
        self.dropped: dict[str, str] = {}
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.dismissed: list[str] = []

    def poll(self, timeout: float) -> list[tuple[str, Any]]:
        self.clock.now += timeout
        return self.news.popleft() if self.news else []

    def accept(self, names: set[str], timeout: float) -> None:
        self.clock.now += timeout
        found = [name for name in self.coming if name in names]
        if not found:
            raise ControlTimeout(f"{', '.join(sorted(names))} did not connect")
        self.coming.remove(found[0])
        self.here.add(found[0])

    def connected(self) -> set[str]:
        return set(self.here)

    def send(self, name: str, message: dict[str, Any]) -> None:
        self.sent.append((name, message))

    def dismiss(self, name: str) -> None:
        self.dismissed.append(name)
        self.here.discard(name)


class Parent:
    """Who started the processes."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.restarted: list[list[str]] = []
        self.signalled: list[list[str]] = []
        self.writes: Callable[[str], object] = lambda name: None

    def events(self) -> list[dict[str, Any]]:
        said, self.said = self.said, []
        return said

    def restart(self, names: list[str]) -> None:
        self.restarted.append(names)

    def signal_stacks(self, names: list[str]) -> None:
        self.signalled.append(names)
        for name in names:
            self.writes(name)


class Scene:
    """A coordinator of two stages, and all that is around it."""

    def __init__(self, folder: Path, clock: Clock, **sections: Any) -> None:
        self.clock, self.control, self.parent = clock, Control(clock), Parent()
        self.noted: list[str] = []
        self.posted: list[tuple[Any, ...]] = []
        self.forgotten: list[Any] = []
        self.reported: list[Any] = []
        self.counted_anew: list[Any] = []
        self.latest: dict[int, Any] = {}
        self.batch_sender = SimpleNamespace(stopped_at=None, stop_requested=threading.Event())
        config = small_config(**{"model": {"cuts": ["layer2"]}, "link": {"timeout": 60}, **sections})
        self.it = RunMonitor(
            config=config,
            control=self.control,
            supervisor=self.parent,
            snapshots=SimpleNamespace(committed=4, run=RunDir(folder), drop_parts_of=self.forgotten.append),
            recorder=SimpleNamespace(
                latest=self.latest,
                backlog=SimpleNamespace(oldest=lambda: None),
                stage_report=self.reported.append,
                restarted=self.counted_anew.append,
            ),
            batch_sender=self.batch_sender,
            total_steps=8,
            steps_per_epoch=4,
            classes=10,
            start_step=2,
            observation=SimpleNamespace(
                note=self.noted.append, post=lambda *words: self.posted.append(words), tick=lambda oldest: None
            ),
        )  # type: ignore[arg-type]

    def says(self, name: str, message: dict[str, Any] | None) -> None:
        self.control.news.append([(name, message)])

    def failure(self) -> FailureReport:
        """What `watch` ends with."""
        with pytest.raises(RunFailed) as raised:
            self.it.watch()
        return raised.value.failure
