"""What the page says is true now is that of now: not of an earlier attempt, nor of steps long gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.observing.test_history import Told, document, facts, line, stage, started, write_lines

NOBODY_KNOWS = {"step": 7, "images_per_second": None, "eta_seconds": None, "window": None}


def test_a_loss_that_is_no_more_is_not_shown_as_that_of_now(tmp_path: Path) -> None:
    history = started(tmp_path)
    history.step_done(line(0))
    history.step_done(line(1, stage(1, 1, loss=None, skipped=1), stage(2, 1, loss=None)))
    first, second = (document(history)["now"]["stages"][index] for index in ("1", "2"))
    assert (first["skipping"], first["skipped"], first["latest"].get("loss")) == (True, 1, None)
    assert (second["skipping"], second["latest"].get("loss")) == (False, None)
    history.step_done(line(2, stage(1, 2, loss=4.0, skipped=1)))
    first = document(history)["now"]["stages"]["1"]
    assert (first["skipping"], first["skipped"], first["latest"]["loss"]) == (False, 1, 4.0)


def test_the_pace_of_an_earlier_attempt_is_not_that_of_now(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", [line(step) for step in range(8)])
    history = Told()
    history.run_started(facts(tmp_path, start_step=8))
    now = document(history)["now"]
    assert {name: now[name] for name in NOBODY_KNOWS} == NOBODY_KNOWS
    assert now["stages"]["1"]["latest"].keys() & {"queue_depth", "loss"} == {"loss"}


def test_the_window_is_as_long_as_it_is(tmp_path: Path) -> None:
    history = started(tmp_path)
    for step in range(4):
        history.step_done(line(step, time=1000.0 * step))
    assert document(history)["now"]["window"] == pytest.approx(2000.0), "of two steps at least"


def test_a_run_that_is_over_does_not_say_that_all_its_stages_only_compute(tmp_path: Path) -> None:
    """Its last steps drained the pipeline, and after the end the page said 100 % computing of every stage for ever."""
    history = started(tmp_path)
    spent = {"busy": 0.0, "wait_input": 0.0, "wait_output": 0.0}
    for step in range(40):
        draining = step >= 20
        spent["busy"] += 1.0
        spent["wait_input"] += 0.0 if draining else 2.0
        history.step_done(line(step, stage(1, step, **spent), time=float(1000 + 20 * step), feed_wait_seconds=step / 2))
    drained = document(history)["now"]
    assert drained["stages"]["1"]["shares"] == [1.0, 0.0, 0.0, 0.0]
    history.run_ended("done")
    whole = document(history)["now"]
    assert whole["stages"]["1"]["shares"] == [0.5, 0.5, 0.0, 0.0]
    assert whole["window"] == pytest.approx(39 * 20.0)
    assert whole["feed_wait"] == pytest.approx(19.5 / (39 * 20.0))


def test_operations_a_second_are_those_of_the_last_seconds_and_a_share_of_the_peak_where_it_is_known(
    tmp_path: Path,
) -> None:
    history = started(tmp_path)
    for step in range(30):
        used = {"flops": 6e12 * (step + 1)}
        history.step_done(line(step, stage(1, step, **used, peak_flops=12e12), stage(2, step, **used), stage(3, step)))
    known, without_peak, without = (document(history)["now"]["stages"][number] for number in "123")
    found = [(shown["flops_per_second"], shown["mfu"]) for shown in (known, without_peak, without)]
    assert found == [(3e12, 0.25), (3e12, None), (None, None)]
