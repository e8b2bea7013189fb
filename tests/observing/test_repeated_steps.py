"""Digests of steps that are done again, by a run that goes on and by a stage that comes back alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.small import small_config
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.alarms import Alarms
from workers.observing.observer import Event
from workers.observing.repeated_steps import RepeatedSteps, keep_digests
from workers.run.files import RunDir


def digests(step: int, **changed: str) -> dict[str, str]:
    return {"input": f"i{step}", "loss": f"l{step}", "weights": f"w{step}", "chain": f"c{step}", **changed}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """It has done steps 0 to 5 with two stages, and recorded every second."""
    run = RunDir(tmp_path)
    lines: list[dict[str, Any]] = []
    for step in range(6):
        found = {"digests": digests(step)} if step % 2 else {}
        lines.append(
            {"step": step, "time": 1.0, "added": {}, "stages": [{"stage": k, "added": {}, **found} for k in (1, 2)]}
        )
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def compared(run: RunDir, start: int, remember: bool = False) -> tuple[RepeatedSteps, list[tuple[int, int, str]]]:
    told: list[tuple[int, int, str]] = []
    return RepeatedSteps(run, start, remember, lambda *said: told.append(said)), told


def test_a_run_that_goes_on_is_compared_with_what_it_had_recorded(run: RunDir) -> None:
    keep_digests(run, 2)
    steps, told = compared(run, 2)
    for step in (2, 3):
        steps.reported(1, step, digests(step) if step % 2 else {})
        steps.reported(2, step, digests(step, chain="other") if step % 2 else {})
    assert told == [], "the chain says nothing of one step"
    assert run.repeated.exists()
    steps.reported(1, 5, digests(5, loss="other", weights="other"))
    steps.reported(2, 5, digests(5, input="other"))
    ((stage, step, text),) = told
    assert (stage, step) == (1, 5)
    assert text.startswith("stage 1 has done step 5 again and got other bits than before: its loss differs first")
    assert not run.repeated.exists(), "all were compared"


def test_a_second_death_before_they_were_repeated_loses_none(run: RunDir) -> None:
    keep_digests(run, 2)
    run.metrics.write_text("".join(run.metrics.read_text().splitlines(keepends=True)[:2]))
    keep_digests(run, 2)
    steps, told = compared(run, 2)
    steps.reported(2, 3, digests(3, input="other"))
    assert [said[:2] for said in told] == [(2, 3)], "no stage before it was told"
    keep_digests(run, 6)
    assert not run.repeated.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"digests": 1}', '{"digests": [[1]]}', '{"digests": [[1, 2, 3]]}'])
def test_a_file_of_somebody_else_is_as_none(run: RunDir, content: str) -> None:
    run.repeated.write_text(content)
    run.metrics.write_text("nothing\n" * 3)
    steps, told = compared(run, 0)
    steps.reported(1, 1, digests(1))
    assert told == []
    keep_digests(run, 2)
    assert not run.repeated.exists()


def test_a_missing_gradient_is_a_difference(run: RunDir) -> None:
    keep_digests(run, 2)
    steps, told = compared(run, 2)
    steps.reported(1, 3, digests(3, gradient="g3"))
    assert "its gradient differs first" in told[0][2]


def test_a_stage_that_comes_back_is_compared_with_itself_since_the_snapshot(run: RunDir) -> None:
    steps, told = compared(run, 0, remember=True)
    for step in range(4):
        steps.reported(2, step, digests(step))
    steps.committed(2)
    steps.reported(2, 2, digests(2))
    assert told == []
    steps.reported(2, 1, digests(1, loss="other"))
    assert told == [], "a snapshot has it"
    for _ in range(2):
        steps.reported(2, 3, digests(3, weights="other"))
    ((stage, step, text),) = told
    assert (stage, step) == (2, 3)
    assert text.endswith("The stages after it went on with the first bits")
    forgetful, none = compared(run, 0)
    for changed in ("one", "other"):
        forgetful.reported(1, 0, digests(0, loss=changed))
    assert none == []


def test_other_bits_are_one_alarm_whatever_alarms_are_off(run: RunDir) -> None:
    active, said = ActiveAlarms(), list[Event]()

    def tell(event: Event) -> None:
        active.event(event)
        said.append(event)

    alarms = Alarms(small_config(alarms={"enabled": False}), tell, active)
    for _ in range(2):
        keep_digests(run, 2)
        RepeatedSteps(run, 2, False, alarms.mismatch).reported(2, 3, digests(3, loss="other"))
    (event,) = said
    assert (event.kind, event.name, event.stage, event.step) == ("alarm", "mismatch", 2, 3)
    assert "its loss differs first" in event.text
