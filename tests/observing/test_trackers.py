"""What a tracker is given, and that no tracker, however slow or broken, is felt by the run."""

from __future__ import annotations

import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.observing import TrackerConfig as Settings
from pipeline.errors import ConfigError
from tests.observing.clock import Clock
from tests.observing.made_up import alarm, facts, line, stage
from tests.waiting import LIMIT, wait_until
from workers.observing.observer import Event
from workers.observing.trackers import delivery, start_trackers, starting
from workers.observing.trackers.base import flatten
from workers.observing.trackers.delivery import Delivery
from workers.observing.trackers.starting import TrackerObserver

OWN = """
    import threading
    from workers.observing.trackers import Tracker

    heard, threads = [], set()
    reached, gate = threading.Event(), threading.Event()

    class Keeps(Tracker):
        def __init__(self, prefix=""):
            self.prefix = prefix
        def start(self, facts):
            self.hear("start", facts.start_step, facts.stages)
        def log(self, step, numbers):
            self.hear("log", step, numbers["stage_1/loss"])
        def event(self, event):
            self.hear("event", event.name)
        def end(self, outcome):
            self.hear("end", outcome)
        def hear(self, what, *more):
            threads.add(threading.current_thread().name)
            heard.append((self.prefix + what, *more))

    class Breaks(Keeps):
        def log(self, step, numbers):
            super().log(step, numbers)
            if step == 2:
                raise ValueError("the service has gone\\nand more")

    class FailsAtTheEnd(Keeps):
        def end(self, outcome):
            raise SystemExit("no")

    class Refuses(Keeps):
        def start(self, facts):
            raise ConnectionError("no route to host")

    class Hangs(Keeps):
        def __init__(self, where):
            self.where, self.prefix = where, ""
        def hear(self, what, *more):
            super().hear(what, *more)
            if what == self.where:
                gate.wait()

    class Interrupts(Keeps):
        def __init__(self, where):
            self.where, self.prefix = where, ""
        def hear(self, what, *more):
            if what == self.where:
                raise KeyboardInterrupt

    class Slow(Keeps):
        def log(self, step, numbers):
            reached.set()
            gate.wait()
            super().log(step, numbers)

    class NoTracker:
        pass
"""
OF_THE_RUN = {"epoch": 0.0, "images": 256.0, "images_per_second": 676.25, "eta_seconds": 216.0}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of trackers, as a user would write it, beside which the user stands."""
    (tmp_path / "own_trackers.py").write_text(textwrap.dedent(OWN))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_trackers", raising=False)
    yield lambda: sys.modules["own_trackers"]
    if left := sys.modules.pop("own_trackers", None):
        left.gate.set()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that ends has all the time that a busy machine takes for it; one that hangs has as little as ever."""
    plain = Delivery.has_ended
    monkeypatch.setattr(Delivery, "has_ended", lambda d, s: plain(d, LIMIT if d.name.endswith("Keeps") else s))


def started(
    *kinds: str | tuple[str, dict[str, Any]], told: list[Event] | None = None, step: int = 0
) -> TrackerObserver:
    given = [(kind, {}) if isinstance(kind, str) else kind for kind in kinds]
    settings = [Settings(kind=f"own_trackers:{kind}", options=options) for kind, options in given]
    return start_trackers(settings, facts(start_step=step), [].append if told is None else told.append)


def steps(observer: TrackerObserver, count: int, first: int = 0) -> None:
    for step in range(first, first + count):
        observer.step_done(line(step, [stage(1, step, loss=float(step))]))


def test_a_line_as_numbers() -> None:
    numbers = flatten(
        line(3, [stage(1, 3, online={"linear": 0.5, "skipped": 2, "rankme": None}), stage(2, 3, loss=None)])
    )
    of_first = {name: value for name, value in numbers.items() if name.startswith("stage_1/")}
    assert of_first == {
        "stage_1/loss": 3.0, "stage_1/loss/invariance": 1.5, "stage_1/learning_rate": 0.1, "stage_1/skipped": 0.0,
        "stage_1/busy": 0.8, "stage_1/wait_input": 0.8, "stage_1/wait_output": 0.4, "stage_1/queue_depth": 1.0,
        "stage_1/link_bytes": 4000.0, "stage_1/linear": 0.5, "stage_1/online_skipped": 2.0,
    }  # fmt: skip
    assert "stage_2/loss" not in numbers
    rest = {name: value for name, value in numbers.items() if "/" not in name}
    assert rest == OF_THE_RUN


def test_a_tracker_hears_everything_in_order_in_one_thread(own: Any) -> None:
    observer = started(("Keeps", {"prefix": "a "}), "Keeps", step=3)
    observer.run_started(facts())
    steps(observer, 2, first=3)
    observer.event(alarm(1, 4))
    observer.run_ended("interrupted")
    expected = [
        ("start", 3, 2), ("log", 3, 3.0), ("log", 4, 4.0), ("event", "nonfinite"), ("end", "interrupted"),
    ]  # fmt: skip
    assert [word for word in own().heard if not word[0].startswith("a ")] == expected
    assert [(name[2:], *rest) for name, *rest in own().heard if name.startswith("a ")] == expected
    assert threading.current_thread().name not in own().threads


def test_one_that_fails_is_told_nothing_more_and_the_others_are(own: Any) -> None:
    told: list[Event] = []
    observer = started("Breaks", ("Keeps", {"prefix": "other "}), told=told)
    steps(observer, 3)
    wait_until(lambda: ("other log", 2, 2.0) in own().heard)
    steps(observer, 3, first=3)
    wait_until(lambda: steps(observer, 1, first=6) or told)
    observer.run_ended("done")
    (event,) = told
    assert (event.kind, event.name, event.stage) == ("note", "tracker", None)
    assert event.text == (
        "tracker 'own_trackers:Breaks' failed at step 2 (ValueError: the service has gone) and is told nothing more"
    )
    heard = own().heard
    assert [word[1] for word in heard if word[0] == "log"] == [0, 1, 2]
    assert ("end", "done") not in heard
    assert heard[-1] == ("other end", "done")


def test_one_that_fails_at_the_end_is_named(own: Any) -> None:
    told: list[Event] = []
    started("FailsAtTheEnd", told=told).run_ended("done")
    assert [event.text for event in told] == [
        "tracker 'own_trackers:FailsAtTheEnd' failed at its end (SystemExit: no) and is told nothing more"
    ]


@pytest.mark.parametrize("where", ["log", "end"])
def test_an_interrupt_of_its_own_is_a_failure_too(own: Any, where: str) -> None:
    told: list[Event] = []
    observer = started(("Interrupts", {"where": where}), "Keeps", told=told)
    steps(observer, 2)
    observer.run_ended("done")  # which does not wait for it, or would say so
    place = "at its end" if where == "end" else "at step 0"
    assert [event.text for event in told] == [
        f"tracker 'own_trackers:Interrupts' failed {place} (KeyboardInterrupt) and is told nothing more"
    ]


@pytest.mark.usefixtures("unhurried")
def test_the_user_hears_whom_the_end_waits_for(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "END_SECONDS", 1e-3)
    monkeypatch.setattr(starting, "PATIENCE_SECONDS", 0.0)
    told: list[Event] = []
    observer = started(("Hangs", {"where": "end"}), "Keeps", ("Hangs", {"where": "end"}), told=told)
    observer.run_ended("done")
    name = "'own_trackers:Hangs'"
    assert told[0].text == f"waiting for trackers {name}, {name} to end, 0.001 s at most"
    assert len(told) == 3


@pytest.mark.usefixtures("unhurried")
def test_one_that_hangs_is_not_waited_for(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "END_SECONDS", 0.4)
    monkeypatch.setattr(delivery, "MAX_WAITING", 5)
    told: list[Event] = []
    observer = started(("Hangs", {"where": "log"}), "Keeps", told=told)
    steps(observer, 1)
    wait_until(lambda: len(own().heard) == 4)  # two starts, two logs
    for step in range(1, 20):  # the other one hears every step meanwhile
        steps(observer, 1, first=step)
        wait_until(lambda last=step: own().heard[-1][:2] == ("log", last))  # type: ignore[misc]
    observer.run_ended("done")
    name = "tracker 'own_trackers:Hangs'"
    assert [event.text for event in told] == [
        f"{name} is too slow: steps are left out of it",
        f"{name} has not ended in time, and is left behind",
        f"{name} missed 14 steps or events",
    ]


def test_one_that_hangs_at_its_end(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "HURRIED_SECONDS", 0.3)
    told: list[Event] = []
    observer = started(("Hangs", {"where": "end"}), told=told)
    steps(observer, 2)
    wait_until(lambda: len(own().heard) == 3)
    observer.run_ended("failed: stage 1")
    assert [event.text for event in told] == ["tracker 'own_trackers:Hangs' has not ended in time, and is left behind"]


def test_one_that_is_slow_gets_what_it_can_take_and_an_end(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAX_WAITING", 5)
    told = list[Event]()
    observer = started("Slow", told=told)
    steps(observer, 1)
    assert own().reached.wait(LIMIT)
    steps(observer, 49, first=1)
    own().gate.set()
    observer.run_ended("done")
    logged = [("log", step, float(step)) for step in range(6)]
    assert own().heard == [("start", 0, 2), *logged, ("end", "done")]
    said = ["is too slow: steps are left out of it", "missed 44 steps or events"]
    assert [event.text for event in told] == [f"tracker 'own_trackers:Slow' {words}" for words in said]


def test_what_waits_is_left_out_when_the_time_is_over(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, has_ended, told = Clock(monkeypatch, delivery), Delivery.has_ended, list[Event]()

    def more_than_half_of_the_time_passes(one: Delivery, seconds: float) -> bool:
        clock.now += 0.6 * starting.HURRIED_SECONDS
        own().gate.set()
        return has_ended(one, LIMIT)

    monkeypatch.setattr(Delivery, "has_ended", more_than_half_of_the_time_passes)
    observer = started("Slow", told=told)
    steps(observer, 500)
    assert own().reached.wait(LIMIT)
    observer.run_ended("interrupted")
    assert own().heard == [("start", 0, 2), ("log", 0, 0.0), ("end", "interrupted")]
    assert [event.text for event in told] == ["tracker 'own_trackers:Slow' missed 499 steps or events"]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("no_such_trackers:A", {}, "trackers.0.kind: there is no module 'no_such_trackers'"),
        ("own_trackers:Keep", {}, "trackers.0.kind: 'own_trackers' has no function 'Keep'. Did you mean 'Keeps'"),
        ("own_trackers:Keeps", {"prefx": "a"}, "trackers.0.options: 'own_trackers:Keeps' failed with these options"),
        (
            "own_trackers:Refuses",
            {},
            "trackers.0.kind: 'own_trackers:Refuses' could not start (ConnectionError: no route",
        ),
        (
            "own_trackers:Interrupts",
            {"where": "start"},
            "trackers.0.kind: 'own_trackers:Interrupts' could not start (KeyboardInterrupt)",
        ),
        ("own_trackers:NoTracker", {}, "trackers.0.kind: 'own_trackers:NoTracker' gives a NoTracker, not a tracker"),
        ("tensorboard", {"folder": "x"}, "trackers.0.options: "),
        ("tensorboard", {"flush_seconds": "soon"}, "trackers.0.options: "),
        ("tensorboard", {"flush_seconds": 0}, "trackers.0.options: "),
    ],
)
def test_one_that_cannot_start_is_an_error(own: Any, kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        start_trackers([Settings(kind=kind, options=options)], facts(), [].append)
    assert str(error.value).startswith(message)


def test_one_that_does_not_come_back_from_its_start(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "START_SECONDS", 0.3)
    with pytest.raises(ConfigError, match=r"trackers\.0\.kind: 'own_trackers:Hangs' has not started within 0\.3 s"):
        started(("Hangs", {"where": "start"}))


def test_those_that_had_started_are_ended(own: Any) -> None:
    with pytest.raises(ConfigError, match=r"trackers\.1\.kind"):
        started("Keeps", "Refuses")
    assert [word[0] for word in own().heard] == ["start", "end"]
    assert own().heard[-1][1].startswith("failed: trackers.1.kind")
