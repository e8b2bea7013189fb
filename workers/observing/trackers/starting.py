"""Checks and starts the trackers of a run, and combines them into one observer."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from pipeline.config import observing as settings
from pipeline.errors import ConfigError, first_line
from pipeline.plugins import Plugin, is_given
from workers.observing.observer import Event, RunFacts
from workers.observing.trackers.base import Tracker
from workers.observing.trackers.delivery import Delivery

BUNDLED = {"tensorboard": "workers.observing.trackers.tensorboard:TensorBoard"}
START_SECONDS = 120.0
END_SECONDS, HURRIED_SECONDS = 60.0, 10.0
"""Time for all trackers together to end: after a completed run, and after one that failed or was stopped."""
PATIENCE_SECONDS = 3.0
"""After this time the user is told that the run waits for trackers."""


def check_trackers(trackers: Sequence[settings.TrackerConfig]) -> None:
    """Check that the packages of the trackers exist and that none is listed twice; imports nothing.

    Raises:
        ConfigError: a package is missing, or a bundled tracker is there twice.
    """
    for number, tracker in enumerate(trackers):
        package = tracker.kind.partition(":")[0].partition(".")[0]
        if tracker.kind not in BUNDLED and not is_given(tracker.kind) and not _findable(package):
            problem = f"there is no module '{package}' on Python's path or in '{Path.cwd()}'"
            raise ConfigError(f"trackers.{number}.kind", problem, "Install it, or start in the folder that contains it")
        if tracker.kind in BUNDLED and tracker.kind in [other.kind for other in trackers[:number]]:
            problem = f"'{tracker.kind}' is there twice, and both would write the same files"
            raise ConfigError(f"trackers.{number}.kind", problem, "Leave one out")
        if tracker.kind == "tensorboard" and not _installed("tensorboard"):
            problem = "tensorboard needs the package 'tensorboard', which is not installed"
            raise ConfigError(f"trackers.{number}.kind", problem, "Install it: pip install 'onward[tensorboard]'")


def _findable(package: str) -> bool:
    """Also in the current directory, where the coordinator looks first."""
    here = PathFinder.find_spec(package, [str(Path.cwd())])
    return here is not None or importlib.util.find_spec(package) is not None


def _installed(package: str) -> bool:
    """A folder of that name in the current directory is none."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def start_trackers(
    trackers: Sequence[settings.TrackerConfig], facts: RunFacts, tell: Callable[[Event], None]
) -> TrackerObserver:
    """Import and start the trackers, one after the other, each in a thread of its own.

    Args:
        trackers: of the configuration.
        facts: of the run.
        tell: receives later problems as events; called from the thread that calls the observer.

    Raises:
        ConfigError: one cannot be imported, created or started in time.
    """
    check_trackers(trackers)
    observer = TrackerObserver([], tell)
    for number, tracker in enumerate(trackers):
        try:
            observer.add(_started(tracker, f"trackers.{number}", facts))
        except ConfigError as error:
            observer.run_ended(f"failed: {error}")
            raise
    return observer


def _started(tracker: settings.TrackerConfig, key: str, facts: RunFacts) -> Delivery:
    delivery = Delivery(tracker.kind, partial(_make, tracker, key), facts)
    if not delivery.start(START_SECONDS):
        problem = f"'{tracker.kind}' has not started within {START_SECONDS:g} s"
        raise ConfigError(f"{key}.kind", problem, "Correct it, or what it waits for, or leave it out")
    if isinstance(delivery.refused, ConfigError):
        raise delivery.refused
    if delivery.refused is not None:
        problem = f"'{tracker.kind}' could not start ({first_line(delivery.refused)})"
        raise ConfigError(f"{key}.kind", problem, "Correct it, or leave it out")
    return delivery


def _make(tracker: settings.TrackerConfig, key: str) -> Tracker:
    name = BUNDLED.get(tracker.kind, tracker.kind)
    made = Plugin(f"{key}.kind", name, f"{key}.options", tracker.options).call()
    if not isinstance(made, Tracker):
        problem = f"'{tracker.kind}' gives a {type(made).__name__}, not a tracker"
        raise ConfigError(f"{key}.kind", problem, "Derive it from workers.observing.trackers.Tracker")
    return made


class TrackerObserver:
    """An observer that passes everything on to the threads of the trackers, and reports their problems.

    Args:
        deliveries: one per tracker, started.
        tell: see `start_trackers`.
    """

    def __init__(self, deliveries: Sequence[Delivery], tell: Callable[[Event], None]) -> None:
        self._deliveries, self._tell = list(deliveries), tell

    def add(self, delivery: Delivery) -> None:
        """Add a tracker."""
        self._deliveries.append(delivery)

    def run_started(self, facts: RunFacts) -> None:
        """Nothing to do: trackers are started earlier, so that one that fails to start prevents the run."""

    def step_done(self, line: Mapping[str, Any]) -> None:
        """See `Observer.step_done`."""
        for delivery in self._deliveries:
            delivery.give(line)
        self._say_news(line["step"])

    def event(self, event: Event) -> None:
        """See `Observer.event`."""
        for delivery in self._deliveries:
            delivery.give(event)

    def run_ended(self, outcome: str) -> None:
        """Wait until the queues are delivered, at most `END_SECONDS`."""
        seconds = END_SECONDS if outcome == "done" else HURRIED_SECONDS
        began = time.monotonic()
        deadline = began + seconds
        for delivery in self._deliveries:
            delivery.finish(outcome, seconds)
        silent_until = began + min(PATIENCE_SECONDS, seconds)
        late = [d.name for d in self._deliveries if not d.has_ended(silent_until - time.monotonic())]
        if late and silent_until < deadline:
            names = ", ".join(f"'{name}'" for name in late)
            self._note(f"waiting for tracker{'s' * (len(late) > 1)} {names} to end, {seconds:g} s at most", None)
        for delivery in self._deliveries:
            delivery.await_end(deadline - time.monotonic())
        self._say_news(None)

    def _say_news(self, step: int | None) -> None:
        for delivery in self._deliveries:
            for sentence in delivery.news():
                self._note(sentence, step)

    def _note(self, sentence: str, step: int | None) -> None:
        self._tell(Event(time=time.time(), kind="note", name="tracker", stage=None, step=step, text=sentence))
