"""Which steps of a run can be computed again, and what is said of those that cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from launch.failure import write_failure
from launch.verifying.intervals import Interval, intervals_of, start_of_step
from pipeline.errors import UserError
from workers.control.failures import FailureReport
from workers.run.files import RunDir
from workers.run.tensor_files import save_tensors
from workers.snapshots.manifest import MANIFEST, Manifest, StageFile

Made = Callable[..., RunDir]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A run that was trained for `done` steps, with these snapshots; `ended`: to its end."""

    def make(done: int, *snapshots: int, ended: bool = False) -> RunDir:
        run = RunDir(tmp_path / "run")
        run.path.mkdir()
        run.metrics.write_text("".join(json.dumps({"step": n, "time": 1.0, "stages": []}) + "\n" for n in range(done)))
        for steps in snapshots:
            path = run.snapshot(steps) / "stage_1.safetensors"
            digest = save_tensors(path, {"x": torch.ones(2)}, root=run.path)
            manifest = Manifest(steps, {1: StageFile(path.name, path.stat().st_size, digest, {})})
            (path.parent / MANIFEST).write_text(json.dumps(manifest.to_json()))
        if ended:
            save_tensors(run.stage(1), {"x": torch.ones(2)}, root=run.path)
            run.report.write_text(json.dumps({"final_digest": "0"}))
        return run

    return make


def found(run: RunDir, first: int | None = None, last: int | None = None) -> list[tuple[int, int, str | None]]:
    intervals: list[Interval] = intervals_of(run, first, last)
    return [(i.first, i.last, None if i.state is None else i.state.name) for i in intervals]


def test_the_default_is_the_last_interval_whose_end_was_kept(made: Made) -> None:
    assert found(made(50, 20, 40, ended=True)) == [(40, 50, "final")]


def test_of_a_run_that_was_stopped_it_ends_with_its_last_snapshot(made: Made) -> None:
    assert found(made(50, 20, 40)) == [(20, 40, "step_40")]


def test_with_one_snapshot_it_begins_at_the_beginning_and_without_any_all_is_computed(made: Made) -> None:
    run = made(50, 20)
    assert found(run) == [(0, 20, "step_20")]
    (run.snapshot(20) / MANIFEST).unlink()
    assert found(run) == [(0, 50, None)]


def test_it_begins_with_the_snapshot_before_and_is_cut_at_those_in_between(made: Made) -> None:
    run = made(50, 10, 20, 40, ended=True)
    assert found(run, 15) == [(10, 20, "step_20")]
    assert found(run, 20) == [(20, 40, "step_40")]
    assert found(run, 12, 45) == [(10, 20, "step_20"), (20, 40, "step_40"), (40, 45, None)]
    assert found(run, 0) == [(0, 10, "step_10")]
    assert found(run, None, 15) == [(10, 15, None)]
    assert found(run, 45) == [(40, 50, "final")]


@pytest.mark.parametrize(
    ("first", "last", "problem"),
    [
        (
            5,
            None,
            "no snapshot of its first 5 steps, the nearest are after 10 and 20 steps. Give --from 10, or --from 0",
        ),
        (50, None, "has been trained for 50 steps"),
        (None, 51, "has been trained for 50 steps"),
        (30, 30, "there are no steps from 30 to 30"),
        (25, 22, "there are no steps from 25 to 22"),
    ],
)
def test_what_cannot_be_is_said(made: Made, first: int | None, last: int | None, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        intervals_of(made(50, 10, 20), first, last)


def test_a_run_without_snapshots_or_steps_says_so(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no snapshots\. Give --from 0, which computes all"):
        intervals_of(made(50), 5, None)
    with pytest.raises(UserError, match="has no step that could be verified"):
        intervals_of(RunDir(tmp_path), None, None)


def test_a_damaged_snapshot_is_no_beginning(made: Made) -> None:
    run = made(50, 20, 40)
    path = run.snapshot(20) / "stage_1.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    for first, last in ((20, None), (0, 40)):
        with pytest.raises(UserError, match=r"digest is not the manifest's\. Give --from 0, or move '\S+step_20' out"):
            intervals_of(run, first, last)
    (run.snapshot(40) / "stage_1.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\)\. Give --from 20, or move"):
        start_of_step(run, 45, None, 20)


def test_lines_that_are_gone_are_not_the_end_of_the_run(made: Made) -> None:
    run = made(50, 20, 40, ended=True)
    run.coordinator.write_text(json.dumps({"total_steps": 50}))
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(lines[:25]))
    assert found(run) == [(40, 50, "final")], "the weights after 50 steps are not those after 25"
    run.metrics.unlink()
    assert found(run, 20) == [(20, 40, "step_40")]
    assert start_of_step(run, 45, None, 20) == 40
    with pytest.raises(UserError, match="has no step 50: it came to step 49"):
        start_of_step(run, 50, None, 20)
    run.coordinator.unlink()
    assert found(run) == [(20, 40, "step_40")], "of an earlier version, whose end nobody knows without its lines"


def test_a_step_is_reached_from_the_last_snapshot_before_it(made: Made) -> None:
    run = made(50, 10, 20, 40)
    assert [start_of_step(run, step, None, 10) for step in (9, 10, 39, 40, 49)] == [0, 10, 20, 40, 40]
    assert [start_of_step(run, 45, first, 10) for first in (0, 15, 40)] == [0, 10, 40]
    write_failure(run, FailureReport("stage 1", 51, "raised", "the loss is nan"))
    assert start_of_step(run, 51, None, 10) == 40, "the step at which it failed has no line"


def test_a_step_that_cannot_be_reached_is_said(made: Made, tmp_path: Path) -> None:
    run = made(50, 30, 40)
    for step, first, problem in (
        (50, None, "has no step 50: it came to step 49"),
        (15, None, r"no snapshot of its first 15 steps, the nearest are after 30 and 40 steps\. Give --from 0, which"),
        (35, 20, r"no snapshot of its first 20 steps, .* Give --from 30, or --from 0"),
        (35, 36, "step 35 is before --from 36"),
    ):
        with pytest.raises(UserError, match=problem):
            start_of_step(run, step, first, 10)
    assert start_of_step(RunDir(tmp_path / "empty"), 0, None, None) == 0
