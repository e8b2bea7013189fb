"""What observers of a run are told, that a failing one harms nobody, and the files that a run leaves."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from tests.observing.clock import Clock
from tests.observing.recorders import Witness, facts, read_steps, recorder, report
from tests.waiting import LIMIT
from workers.control.failures import FailureReport, Interrupted, RunFailed
from workers.control.validation import MalformedMessage
from workers.coordinator import throughput as pace
from workers.coordinator.observers import outcome_of
from workers.coordinator.step_lines import without_nulls
from workers.observing.event_log import EventLog
from workers.observing.history_file import read_events
from workers.observing.observer import Event, Observers

PACES = [{"images_per_second": 0.0, "eta_seconds": None}, {"images_per_second": 32.0, "eta_seconds": 2.0}]
"""Of two steps of three, 64 images each, two seconds apart."""
EVENT = Event(time=12.5, kind="alarm", name="collapse", stage=2, step=7, text="stage 2: its features have collapsed")


class Failing(Witness):
    """Raises in every step."""

    def step_done(self, line: Mapping[str, Any]) -> None:
        super().step_done(line)
        raise ZeroDivisionError("no such step")


def test_an_observer_that_fails_is_told_nothing_more_and_the_others_are() -> None:
    said: list[str] = []
    failing, steady = Failing(), Witness()
    observers = Observers([failing, steady], said.append)
    for step in range(3):
        observers.step_done({"step": step})
    observers.run_ended("done")
    assert len(failing.told) == 1
    assert steady.told == [*(("step", {"step": step}) for step in range(3)), ("ended", "done")]
    assert said == ["Failing failed (ZeroDivisionError: no such step) and is not called again"]


def test_a_terminal_that_is_gone_does_not_end_the_run() -> None:
    """What fails may be the terminal itself: a full disk behind it, or a window that was closed."""

    def gone(sentence: str) -> None:
        raise OSError(28, "No space left on device")

    steady = Witness()
    Observers([Failing(), steady], gone).step_done({"step": 0})
    assert steady.told == [("step", {"step": 0})]


def test_what_other_threads_say_is_told_by_the_main_one() -> None:
    witness = Witness()
    observers = Observers([witness], print)
    thread = threading.Thread(target=observers.post, args=(EVENT,))
    thread.start()
    thread.join(LIMIT)
    assert witness.told == []
    observers.deliver()
    assert witness.told == [("event", EVENT)]


def test_an_observer_may_say_something_while_it_is_told_something() -> None:
    witness = Witness()

    class Speaking(Witness):
        def step_done(self, line: Mapping[str, Any]) -> None:
            observers.event(EVENT)

    observers = Observers([Speaking(), witness], print)
    observers.step_done({"step": 0})
    assert witness.told == [("event", EVENT), ("step", {"step": 0})]


def test_an_event_travels_as_json() -> None:
    assert Event.from_json(json.loads(json.dumps(EVENT.to_json()))) == EVENT
    for wrong in ({"kind": "party"}, {"stage": 0}, {"step": -1}, {"time": "noon"}):
        with pytest.raises(MalformedMessage, match=next(iter(wrong))):
            Event.from_json({**EVENT.to_json(), **wrong})


def test_a_line_of_metrics_says_all_that_was_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, witness = Clock(monkeypatch, pace), Witness()
    with recorder(tmp_path, 3, None, witness) as joined:
        for step in range(2):
            clock.now += 2.0
            joined.feed = replace(joined.feed, wait_seconds=1.5)
            joined.batch_sent(step, 0, 64, 2)
            joined.stage_report(report(2, step, gradient_norm=4.0, memory_bytes=10**9))
            joined.stage_report(report(1, step))
            joined.snapshot_written(2, 0.25)
    lines, notes = read_steps(tmp_path / "metrics.jsonl")
    assert notes == []
    assert [without_nulls(told) for told in witness.of("step")] == lines, "a file has no nulls"
    first, last = lines
    assert (first["step"], first["epoch"], first["images"], first["feed_wait_seconds"]) == (0, 0, 64, 1.5)
    assert [{name: line.get(name) for name in PACES[0]} for line in lines] == PACES
    assert [stage["stage"] for stage in first["stages"]] == [1, 2]
    assert last["stages"][1] == {
        "stage": 2, "step": 1, "loss": 0.5, "terms": {}, "learning_rate": 0.1, "skipped": 0, "busy": 2.0,
        "wait_input": 0.0, "wait_output": 0.0, "copying": 0.0, "queue_depth": 1, "link_bytes": 10,
        "gradient_norm": 4.0, "memory_bytes": 10**9, "snapshot_seconds": 0.25,
        "added": {"busy": 1.0},
    }  # fmt: skip
    assert "snapshot_seconds" not in last["stages"][0]


def test_events_are_appended_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path) == ([], [])
    for number in range(2):
        log = EventLog(path)
        log.run_started(facts(tmp_path))
        log.event(replace(EVENT, step=number))
        log.run_ended("done")
    assert read_events(path) == ([replace(EVENT, step=0), replace(EVENT, step=1)], [])


def lines_of(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(lines))
    return path


GOOD = '{"step": 0, "time": 1.0, "stages": [{"stage": 1}]}\n'


def test_a_last_line_that_was_cut_short_is_left_out_and_said(tmp_path: Path) -> None:
    for cut in range(1, len(GOOD) - 1):
        lines, notes = read_steps(lines_of(tmp_path, GOOD, GOOD[:cut]))
        assert len(lines) == 1
        assert notes == ["the last line of metrics.jsonl, number 2, is cut short and left out"]
    assert len(read_steps(lines_of(tmp_path, GOOD, GOOD[:-1]))[0]) == 2, "whole, but for its end"
    assert read_steps(lines_of(tmp_path)) == ([], [])


@pytest.mark.parametrize(
    "wrong",
    ["", "{}", "[]", "3", '{"step": 0', '{"step": true, "time": 1, "stages": []}',
     '{"step": 0, "time": 1e999, "stages": []}',
     '{"step": 0, "time": 1, "stages": [1]}', '{"step": 0, "time": 1, "stages": [{"stage": "a"}]}', "\xff", "[" * 10**5,
     '{"step": 0, "time": ' + "9" * 400 + ', "stages": []}'],
)  # fmt: skip
def test_damage_elsewhere_is_an_error_that_names_the_line(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(GOOD.encode() + wrong.encode("latin-1") + b"\n" + GOOD.encode())
    with pytest.raises(UserError, match=r"metrics\.jsonl', line 2: not what a run writes"):
        read_steps(path)


def test_a_run_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist\. Give the folder"):
        read_steps(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        read_steps(tmp_path)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "done"),
        (RunFailed(FailureReport("stage 2", 3, "died", "SIGKILL")), "failed: stage 2 failed at step 3: SIGKILL"),
        (RunFailed(FailureReport("coordinator", None, "interrupted", "interrupted")), "interrupted"),
        (Interrupted("SIGTERM"), "interrupted"),
        (ZeroDivisionError(), "failed: ZeroDivisionError"),
    ],
)  # fmt: skip
def test_how_a_run_ended_in_words(error: BaseException | None, outcome: str) -> None:
    assert outcome_of(error) == outcome
