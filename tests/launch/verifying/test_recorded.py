"""The digests of two sides: which is the first that differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launch.verifying.recorded import DIGESTED, Difference, digests_of, first_difference, loss_of
from pipeline.stage import digests
from workers.run.files import RunDir

ZERO, ONE = "0" * 32, "1" * 32


def side(steps: int = 3, stages: int = 2, **changed: str) -> dict[int, dict[int, dict[str, str]]]:
    """Digests that are all alike, but for `step_stage_what`: `s2_k1_loss`."""
    found = {step: {stage: dict.fromkeys(DIGESTED, ZERO) for stage in range(1, stages + 1)} for step in range(steps)}
    for name, value in changed.items():
        step, stage, what = name.split("_")
        found[int(step[1:])][int(stage[1:])][what] = value
    return found


def test_the_names_are_those_that_stages_record() -> None:
    assert DIGESTED == digests.DIGESTED


def test_sides_that_are_equal_do_not_differ_where_only_one_has_recorded() -> None:
    assert first_difference(side(), side(), {1, 2}) is None
    assert first_difference(side(steps=5), side(steps=2), {1, 2}) is None


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({"s1_k2_loss": ONE, "s1_k2_gradient": ONE, "s2_k1_input": ONE}, Difference(1, 2, "loss")),
        ({"s2_k2_weights": ONE, "s2_k1_weights": ONE}, Difference(2, 1, "weights")),
        ({"s0_k2_input": ONE, "s0_k2_loss": ONE}, Difference(0, 2, "input")),
    ],
)
def test_the_first_step_then_the_first_stage_then_what_is_computed_first(
    changed: dict[str, str], first: Difference
) -> None:
    assert first_difference(side(), side(**changed), {1, 2}) == first


def test_only_the_stages_that_are_asked_for_count() -> None:
    assert first_difference(side(), side(s0_k1_loss=ONE), {2}) is None


def test_one_that_is_missing_on_one_side_differs() -> None:
    skipped = side()
    del skipped[1][2]["gradient"]
    assert first_difference(side(), skipped, {1, 2}) == Difference(1, 2, "gradient")


def test_it_says_what_was_equal() -> None:
    assert str(Difference(3, 2, "input")) == "step 3, stage 2: input"
    assert str(Difference(3, 2, "loss")) == "step 3, stage 2: loss (input is equal)"
    assert str(Difference(3, 2, "gradient")) == "step 3, stage 2: gradient (input and loss are equal)"
    assert str(Difference(3, 2, "weights")).endswith("weights (input, loss and gradient are equal)")


def test_they_are_read_from_the_lines_of_the_last_attempt(tmp_path: Path) -> None:
    def line(step: int, digests: Any) -> str:
        stage = {"stage": 1, **({} if digests is None else {"digests": digests})}
        return json.dumps({"step": step, "time": 1.0, "stages": [stage]}) + "\n"

    run = RunDir(tmp_path)
    lines = [
        (0, None),
        (1, {"loss": ZERO}),
        (3, {"loss": ZERO}),
        (3, {"loss": ONE}),
        (5, {"loss": "no digest"}),
        (7, 3),
    ]
    run.metrics.write_text("".join(line(*each) for each in lines))
    assert digests_of(run) == {1: {1: {"loss": ZERO}}, 3: {1: {"loss": ONE}}}
    assert list(digests_of(run, 2)) == [3]
    assert list(digests_of(run, 0, 3)) == [1]


def test_the_loss_is_that_of_the_last_attempt_and_of_the_last_step_of_a_line(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert (digests_of(run), loss_of(run, 0, 1)) == ({}, None), "there is no file"
    losses: list[tuple[int, Any]] = [(3, 0.1), (3, 0.30000001192092896), (7, None)]
    lines = [{"step": n, "time": 1.0, "stages": [{"stage": 1, "loss": loss}, {"stage": 2}]} for n, loss in losses]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert loss_of(run, 3, 1) == 0.30000001192092896
    assert [loss_of(run, *place) for place in ((2, 1), (3, 2), (7, 1))] == [None, None, None]
