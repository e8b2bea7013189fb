"""What a run's wall time went to, in which new steps were made, whoever was stopped, killed or started again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from launch.failure import write_failure
from launch.pages.page import page
from launch.pages.run_record import read_run
from launch.prepare import resume
from launch.prepare.resume import roll_back
from tests.launch.pages.reported import Page, write_run
from tests.observing.clock import Clock
from tests.observing.recorders import facts, recorder, report
from tests.pipeline.small import small_config
from workers.control.failures import FailureReport
from workers.coordinator import recorder as recorder_module
from workers.coordinator.recorder import Recorder
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.event_log import EventLog
from workers.observing.goodput import AttemptStart, Goodput, Spent, write_start
from workers.observing.history_file import each_step, read_events
from workers.observing.metrics import RunMetrics
from workers.observing.observer import Event
from workers.run.files import RunDir

CONFIG = small_config()
BEGAN, TOTAL = 1000.0, 12


class Scene:
    """A run of one stage, whose clock the test moves. Steps take two seconds, the first of an attempt ten."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.run, self.clock = RunDir(folder), clock
        self.goodput = Goodput(AttemptStart())
        write_start(self.run, AttemptStart(BEGAN))

    def attempt(self, start: int, end: int, every: int = 1, kill: bool = False) -> None:
        """Train these steps and stop. `kill`: lines that are held are lost."""
        self.goodput = Goodput.of(self.run)
        self.goodput.run_started(facts(self.run.path, TOTAL))
        joined = recorder(self.run.path, TOTAL, start=start, line_ends=(every,), goodput=self.goodput)
        with joined:
            for step in range(start, end):
                self.step(joined, step, 10.0 if step == start else 2.0)
            if kill:
                joined._lines._held = None

    def step(self, joined: Recorder, step: int, seconds: float) -> None:
        self.clock.now += seconds
        if step not in joined._batches and (1 not in joined.latest or step > joined.latest[1].step):
            joined.batch_sent(step, 0, 64, 1)
        joined.stage_report(report(1, step))

    def again(self, steps: int, **how: bool) -> None:
        roll_back(CONFIG, self.run, steps, **how)

    def event(self, at: float) -> None:
        event = Event(time=at, kind="note", name="note", stage=None, step=None, text=".")
        EventLog(self.run.events).event(event)
        self.goodput.event(event)

    def of_files(self) -> Spent:
        """As somebody adds it up who has only the files."""
        found = Goodput.of(self.run)
        found._total = TOTAL
        for line in each_step(self.run.metrics, []):
            found.written(line)
        for event in read_events(self.run.events)[0]:
            found.event(event)
        return found.spent


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, Clock(monkeypatch, recorder_module, resume))


def test_of_a_run_that_nothing_happens_to_only_the_start_is_lost(scene: Scene) -> None:
    scene.attempt(0, 5)
    assert scene.goodput.spent == Spent(run=18.0, start=10.0, new=8.0, steps=5)
    assert scene.goodput.spent.ratio == 8 / 18
    assert scene.of_files() == scene.goodput.spent


def test_a_stage_that_comes_back_costs_the_wait_for_it_and_what_it_repeats(scene: Scene) -> None:
    scene.goodput = Goodput.of(scene.run)
    with recorder(scene.run.path, TOTAL, goodput=scene.goodput) as joined:
        for step in range(4):
            scene.step(joined, step, 2.0)
        for wait in (3.0, 7.0):  # it dies again while it repeats
            joined.restarted([1])
            scene.step(joined, 2, wait)
        scene.step(joined, 3, 1.5)
        scene.step(joined, 4, 2.0)
        scene.step(joined, 5, 2.0)
        whole = joined.report()["goodput"]
    spent = scene.goodput.spent
    assert spent == Spent(run=23.5, start=2.0, new=8.0, restart=10.0, repeat=3.5, steps=6)
    assert scene.of_files() == spent
    lost = {"start": 2.0, "restart": 10.0, "repeat": 3.5}
    assert whole == {"ratio": 8.0 / 23.5, "seconds": 8.0, "run_seconds": 23.5, "lost": lost}


@pytest.mark.parametrize("every", [1, 4])
def test_steps_that_all_processes_repeat_are_no_new_ones(scene: Scene, every: int) -> None:
    scene.attempt(0, 6, every)
    scene.clock.now += 5.0
    scene.again(4, restarted=True)
    scene.clock.now += 4.0
    scene.attempt(4, 10, every)
    spent = scene.goodput.spent
    assert spent == Spent(run=20.0 + 9.0 + 20.0, start=10.0, new=18.0, restart=19.0, repeat=2.0, steps=10)
    assert scene.of_files() == spent


def test_a_line_of_several_steps_may_be_in_part_a_repetition(scene: Scene) -> None:
    scene.attempt(0, 6, every=4)  # lines of the steps 0; 1 to 3; 4 and 5
    scene.again(0, restarted=True)
    scene.attempt(0, 9, every=8)  # of the steps 0; 1 to 7, of which two are new; 8
    assert scene.goodput.spent == Spent(run=20.0 + 26.0, start=10.0, new=16.0, restart=10.0, repeat=10.0, steps=9)


def test_time_in_which_nobody_ran_it_is_not_counted(scene: Scene) -> None:
    scene.attempt(0, 6)
    scene.event(scene.clock.now + 1.0)
    scene.clock.now += 86400.0
    scene.again(4)
    scene.attempt(4, 8)
    spent = scene.goodput.spent
    assert spent == Spent(run=20.0 + 1.0 + 16.0, start=20.0, new=14.0, restart=1.0, repeat=2.0, steps=8)
    assert scene.of_files() == spent


@pytest.mark.parametrize(
    ("kind", "restarted", "waited"),
    [("hung", False, 3.0), ("hung", True, 50.0), ("interrupted", True, 3.0)],
    ids=["resumed", "restarted", "stopped by the user"],
)
def test_a_run_lasts_until_its_failure_is_known(
    scene: Scene, kind: str, restarted: bool, waited: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.attempt(0, 6)
    monkeypatch.setattr("launch.failure.time", scene.clock)
    scene.clock.now += 3.0
    write_failure(scene.run, FailureReport("stage 1", 6, kind, "it stood still"))
    scene.clock.now += 47.0
    scene.again(6, restarted=restarted)
    spent = Goodput.of(scene.run).spent
    assert spent == Spent(run=20.0 + waited, start=10.0, new=10.0, restart=waited, steps=6)


def test_what_is_served_never_falls_and_is_what_the_files_say(scene: Scene) -> None:
    """Otherwise Prometheus would take it for a counter that was reset, and add all of it once more."""
    served = list[tuple[float, float]]()

    def look() -> None:
        registry = RunMetrics(ActiveAlarms(), scene.goodput).registry
        names = ("onward_goodput_seconds_total", "onward_run_seconds_total")
        good, run = (registry.get_sample_value(name) or 0.0 for name in names)
        assert (good, run) == (scene.goodput.spent.new, scene.goodput.spent.run)
        served.append((good, run))
        assert scene.of_files() == scene.goodput.spent

    for start, end, every, kill in ((0, 6, 1, False), (4, 9, 4, True), (4, 10, 4, False), (8, 11, 3, True)):
        scene.attempt(start, end, every, kill)
        look()
        scene.clock.now += 0.1
        scene.event(scene.clock.now)
        look()
        scene.clock.now += 1 / 3
        scene.again(8 if end > 9 else 4, restarted=end % 2 == 0)
        scene.goodput = Goodput.of(scene.run)
        look()
    assert served == sorted(served)
    assert [run for _, run in served] == sorted(run for _, run in served)


def test_what_comes_after_the_last_step_is_not_counted(scene: Scene) -> None:
    scene.attempt(0, TOTAL)
    before = scene.goodput.spent
    scene.event(scene.clock.now + 100.0)
    assert scene.goodput.spent == scene.of_files() == before == Spent(run=32.0, start=10.0, new=22.0, steps=TOTAL)


def test_a_clock_that_is_set_back_costs_nothing(scene: Scene) -> None:
    scene.goodput = Goodput.of(scene.run)
    with recorder(scene.run.path, TOTAL, goodput=scene.goodput) as joined:
        for seconds in (10.0, 2.0, -1.5, 2.0, 2.0):
            scene.step(joined, joined.steps, seconds)
    assert scene.goodput.spent == Spent(run=14.5, start=10.0, new=4.5, steps=5)


def without(name: str) -> Callable[[dict[str, object]], object]:
    return lambda attempt: {key: value for key, value in attempt.items() if key != name}


@pytest.mark.parametrize(
    "damage",
    [
        lambda attempt: None,
        lambda attempt: [attempt],
        lambda attempt: {**attempt, "began": "yesterday"},
        lambda attempt: {**attempt, "before": {"run": -1.0}},
        lambda attempt: {**attempt, "before": {"run": float("nan")}},
    ],
)
def test_a_start_that_cannot_be_read_begins_with_the_first_step(
    scene: Scene, damage: Callable[[dict[str, object]], object]
) -> None:
    state = {"attempt": damage(AttemptStart(BEGAN).to_json()), "total_steps": "many"}
    scene.run.coordinator.write_text(json.dumps(state))
    scene.attempt(0, 5)
    assert scene.of_files() == replace(scene.goodput.spent) == Spent(run=8.0, new=8.0, steps=5)
    assert Goodput.of(scene.run, began=7.0).start == AttemptStart(7.0)


def test_a_line_of_an_earlier_version_is_one_of_new_steps(scene: Scene) -> None:
    for step in range(3):
        scene.goodput.written({"step": step, "time": 100.0 + 2 * step, "stages": []})
    assert scene.goodput.spent == Spent(run=4.0, new=4.0, steps=3)


def test_before_anything_has_happened_there_is_no_share() -> None:
    assert Goodput(AttemptStart(5.0)).spent.to_json()["ratio"] is None


def test_a_report_says_what_was_lost(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path / "run").path)
    assert record.spent == Spent(run=37.0, start=7.5, new=29.0, restart=0.5, steps=60)
    assert "78.4 % goodput; lost: start 7.5 s, restart 0.5 s, repeat 0.0 s" in Page(page(record, [])).text
