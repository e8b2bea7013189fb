"""All observers of a run together: what they are told by whom, also by a run that goes on after another."""

from __future__ import annotations

import io
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from pipeline.errors import ConfigError, UserError
from tests.observing.recorders import Witness
from tests.pipeline.small import small_config
from tests.waiting import LIMIT
from workers.control.failures import FailureReport, RunFailed
from workers.coordinator.observers import Observation
from workers.observing.event_log import EventLog
from workers.observing.history_file import read_events
from workers.observing.observer import Event
from workers.observing.terminal.console import Console
from workers.run.files import RunDir


def observation(folder: Path, start_step: int = 0, **sections: Any) -> tuple[Observation, Witness, io.StringIO]:
    shown, witness = io.StringIO(), Witness()
    terminal = Console(RichConsole(file=shown, width=200))
    made = Observation(small_config(**sections), RunDir(folder), terminal, start_step)
    made.observers.add(witness)
    return made, witness, shown


def test_everybody_is_told_from_the_beginning_to_the_end(tmp_path: Path) -> None:
    made, witness, shown = observation(tmp_path)
    with made:
        state = json.loads((tmp_path / "coordinator.json").read_text())
        assert state["stages"] == 4
        assert state["metrics"] == state["page"] + "metrics"
        assert state["page"] in shown.getvalue()
        made.begin(12, 4)
        made.committed(8)
        made.note("the disk is nearly full")
        assert len(witness.told) == 1, "what is posted waits for the main thread"
        made.tick()
        with urllib.request.urlopen(state["metrics"], timeout=LIMIT) as answer:
            assert "onward_run_steps 12.0" in answer.read().decode()
    (facts,) = witness.of("started")
    assert (facts.name, facts.stages, facts.total_steps, facts.steps_per_epoch) == (tmp_path.name, 4, 12, 4)
    assert facts.config["model"]["backbone"] == "resnet18"
    kinds = [("snapshot", "snapshot", 8), ("note", "note", None)]
    assert [(event.kind, event.name, event.step) for event in witness.of("event")] == kinds
    assert read_events(tmp_path / "events.jsonl") == (witness.of("event"), [])
    assert "the disk is nearly full" in shown.getvalue()
    assert witness.told[-1] == ("ended", "done")


def test_no_observer_is_told_a_trackers_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.coordinator.observers.start_trackers", lambda *_: Witness())
    tracker = {"kind": "my_trackers:Sheet", "options": {"api_key": "of-the-owner", "entity": "us"}}
    made, witness, _ = observation(tmp_path, trackers=[tracker], metrics={"port": 0})
    with made:
        page = json.loads((tmp_path / "coordinator.json").read_text())["page"]
        made.begin(12, 4)
        with urllib.request.urlopen(f"{page}history.json", timeout=LIMIT) as answer:
            served = answer.read().decode()
    (facts,) = witness.of("started")
    assert facts.config["trackers"][0]["kind"] == "my_trackers:Sheet"
    assert "my_trackers:Sheet" in served
    for told in (served, json.dumps(facts.config)):
        assert "of-the-owner" not in told
        assert '"us"' not in told


def test_how_it_failed_is_told_once(tmp_path: Path) -> None:
    made, witness, _ = observation(tmp_path, metrics={"enabled": False})

    def fail() -> None:
        with made:
            made.begin(12, 4)
            raise RunFailed(FailureReport("stage 1", 2, "died", "SIGKILL"))

    with pytest.raises(RunFailed):
        fail()
    assert "metrics" not in json.loads((tmp_path / "coordinator.json").read_text())
    assert witness.of("ended") == ["failed: stage 1 failed at step 2: SIGKILL"]


def test_why_it_failed_is_written_down_before_the_observers_are_told(tmp_path: Path) -> None:
    told: list[str] = []
    error = RunFailed(FailureReport("stage 1", 2, "died", "SIGKILL"))
    config = small_config(metrics={"enabled": False})
    made = Observation(
        config, RunDir(tmp_path), Console(RichConsole(file=io.StringIO())), failed=lambda error: told.append(str(error))
    )

    class Slow(Witness):
        def run_ended(self, outcome: str) -> None:
            told.append(outcome)

    made.observers.add(Slow())

    def fail() -> None:
        with made:
            made.begin(12, 4)
            raise error

    with pytest.raises(RunFailed):
        fail()
    assert told == [str(error), f"failed: {error}"]


def test_no_tracker_is_started_for_a_run_whose_events_are_damaged(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("damage\n\n")
    made, witness, _ = observation(tmp_path, trackers=["no_such_module_of_anybody:Sheet"])
    with pytest.raises(UserError, match="line 1: not what a run writes"), made:
        made.begin(12, 4)
    assert witness.told == []


def test_a_run_that_did_not_begin_does_not_end(tmp_path: Path) -> None:
    made, witness, _ = observation(tmp_path, trackers=["no_such_module_of_anybody:Sheet"])
    with pytest.raises(ConfigError, match=r"trackers\.0\.kind"), made:
        made.begin(12, 4)
    assert witness.told == []


def test_a_run_that_goes_on_ends_the_alarms_of_the_one_before(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for kind, name, stage in (("alarm", "silent", 2), ("alarm", "collapse", 1), ("cleared", "collapse", 1)):
        log.event(Event(time=1.0, kind=kind, name=name, stage=stage, step=3, text="."))  # type: ignore[arg-type]
    made, witness, _ = observation(tmp_path, start_step=4)
    with made:
        made.begin(12, 4)
    told = [(event.kind, event.name, event.stage, event.step) for event in witness.of("event")]
    assert told == [("cleared", "silent", 2, None), ("restart", "restart", None, 4)]
    assert len(read_events(tmp_path / "events.jsonl")[0]) == 5
