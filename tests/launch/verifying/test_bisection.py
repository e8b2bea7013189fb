"""Where two runs part: found in what both have recorded, in few looks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.commands.bisect import bisect_runs
from launch.prepare.provenance import record_start
from launch.prepare.run_dir import read_config
from launch.verifying.bisection import RecordedAt, first_that_differs
from launch.verifying.recorded import Difference
from pipeline.errors import UserError
from pipeline.validation.loading import dump_config
from tests.pipeline.small import small_config
from workers.run.files import RunDir

STEPS = 40


@pytest.mark.parametrize("first", [0, 1, 17, 999, 1000])
def test_a_thousand_places_are_found_in_a_few_looks(first: int) -> None:
    looks: list[RecordedAt] = []

    def same(place: RecordedAt) -> bool:
        looks.append(place)
        return place.steps < first

    places = [RecordedAt(steps, False) for steps in range(1000)]
    assert first_that_differs(places, same) == first
    assert len(looks) <= 11


def recorded(folder: Path, parts_at: int = STEPS, stage: int = 1, every: int = 1, stages: int = 4) -> Path:
    """A run whose digests are those of every other one until a step."""
    run = RunDir(folder)
    folder.mkdir()
    run.config.write_text(dump_config(small_config(model={} if stages == 4 else {"cuts": ["layer2"]})))
    with run.metrics.open("w") as file:
        for step in range(STEPS):
            line = {"step": step, "time": float(step), "stages": [{"stage": k} for k in range(1, stages + 1)]}
            for own in line["stages"] if (step + 1) % every == 0 else ():  # type: ignore[attr-defined]
                parted = step > parts_at or (step == parts_at and own["stage"] >= stage)
                own["digests"] = dict.fromkeys(("input", "loss", "gradient", "weights"), f"{step + 1000 * parted:032x}")
                if step == parts_at and own["stage"] == stage:
                    own["digests"]["input"] = f"{step:032x}"
            file.write(json.dumps(line) + "\n")
    return folder


def test_the_first_step_and_stage_are_named(tmp_path: Path) -> None:
    found = bisect_runs(recorded(tmp_path / "a"), recorded(tmp_path / "b", parts_at=23, stage=3))
    assert (found.equal, found.difference, found.exact) == (23, Difference(23, 3, "loss"), True)
    assert "part at step 23, stage 3: loss (input is equal)" in str(found)


def test_digests_of_some_steps_name_the_two_between_which_it_is(tmp_path: Path) -> None:
    found = bisect_runs(recorded(tmp_path / "a", every=4), recorded(tmp_path / "b", parts_at=21, every=6))
    assert (found.equal, found.difference, found.exact) == (12, Difference(23, 1, "input"), False)
    assert "part between steps 12 and 23; first recorded at step 23" in str(found)
    assert "--recompute" in str(found)


def test_runs_that_are_equal_say_until_when(tmp_path: Path) -> None:
    found = bisect_runs(recorded(tmp_path / "a"), recorded(tmp_path / "b", every=3))
    assert not found.parted
    assert str(found).endswith("are equal to the bit until 39 steps, the last that both have recorded")


def test_an_edit_of_one_side_is_told_with_what_differs(tmp_path: Path) -> None:
    runs = recorded(tmp_path / "a"), recorded(tmp_path / "b", parts_at=23)
    for run in runs:
        record_start(read_config(run), RunDir(run))
    text = (runs[1] / "config.yaml").read_text()
    (runs[1] / "config.yaml").write_text(text.replace("lambd: 0.0051", "lambd: 0.006"))
    why = bisect_runs(*runs).why
    assert why[0] == "objective.lambd is 0.0051 there, 0.006 here"
    assert why[-1].endswith("b/config.yaml was edited after the run was started: objective.lambd was 0.0051, is 0.006")


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"nothing was recorded after as many steps of both: .*digests of 40 steps.*no digests"
    ):
        bisect_runs(recorded(tmp_path / "a"), recorded(tmp_path / "none", every=STEPS + 1))
    with pytest.raises(UserError, match=r"4 stages and .* has 2\. Give two runs of the same stages"):
        bisect_runs(tmp_path / "a", recorded(tmp_path / "two", stages=2))
