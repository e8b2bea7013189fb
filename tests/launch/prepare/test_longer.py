"""A run may be trained longer where no step that was planned would change; elsewhere the refusal says how."""

from __future__ import annotations

import pytest

from launch.prepare.config_differences import deciding_differences
from launch.prepare.longer import why_not_longer
from pipeline.errors import ConfigError
from pipeline.optim import build_schedule
from tests.pipeline.small import small_config


def refusal(before: dict, after: dict) -> str | None:
    earlier, config = small_config(**before), small_config(**after)
    return why_not_longer(config, earlier, deciding_differences(earlier, config))


COSINE, CONSTANT = {"train": {"epochs": 4}}, {"train": {"epochs": 4}, "optimizer": {"schedule": "constant"}}
AGAIN = {"train": {"epochs": 9, "restarts": [4]}}


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (COSINE, {"train": {"epochs": 9}}, "Let it begin anew behind them: train.epochs=9 train.restarts=[4]"),
        (COSINE, {"train": {"epochs": 5}}, "train.epochs=6 train.restarts=[4]"),  # one more has no room for the warm-up
        (COSINE, AGAIN, None),
        (AGAIN, {"train": {"epochs": 12, "restarts": [4, 9]}}, None),
        (AGAIN, {"train": {"epochs": 12, "restarts": [9]}}, "The schedule of what is planned would be another"),
        (CONSTANT, {**CONSTANT, "train": {"epochs": 9}}, None),
        (CONSTANT, {**CONSTANT, "train": {"epochs": 3}}, "It can become longer, not shorter"),
        ({"train": {"max_steps": 3}}, {"train": {"max_steps": 5}}, None),
        ({"train": {"max_steps": 3}}, {}, None),
        ({}, {"train": {"max_steps": 3}}, "It can become longer, not shorter"),
        (COSINE, {**AGAIN, "seed": 2}, "More than its length differs"),
        (
            {**CONSTANT, "mode": "sequential"},
            {**CONSTANT, "mode": "sequential", "train": {"epochs": 9}},
            "every block has its turn",
        ),
        (
            {**CONSTANT, "noise": {"kind": "all", "std": 0.1, "schedule": "linear", "final_std": 0.2}},
            {**CONSTANT, "train": {"epochs": 9},
             "noise": {"kind": "all", "std": 0.1, "schedule": "linear", "final_std": 0.2}},
            "The noise of stage 1 changes over the 4 epochs",
        ),
    ],
)  # fmt: skip
def test_what_may_become_longer(before: dict, after: dict, problem: str | None) -> None:
    found = refusal(before, after)
    assert found is None if problem is None else problem in str(found)


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_a_restart_leaves_the_steps_before_it_as_they_were(schedule: str) -> None:
    settings = small_config(optimizer={"schedule": schedule, "milestones": [2]}).optimizer
    planned, longer = build_schedule(settings, 8, 4, 10), build_schedule(settings, 8, 9, 10, (4,))
    assert [longer(step) for step in range(40)] == [planned(step) for step in range(40)]
    second = build_schedule(settings, 8, 5, 10)
    assert [longer(step) for step in range(40, 90)] == [second(step) for step in range(50)]


@pytest.mark.parametrize(
    ("train", "problem"),
    [
        ({"epochs": 4, "restarts": [4]}, r"train\.restarts: got \[4\].*Give epochs from 1 to 3"),
        ({"epochs": 9, "restarts": [5, 3]}, r"train\.restarts"),
        ({"epochs": 9, "restarts": [8]}, "a warm-up of 1 epochs takes all of the 1 epochs of training from one of"),
    ],
)
def test_restarts_lie_inside_the_training(train: dict, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        small_config(train=train)
