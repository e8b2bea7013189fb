"""A frozen stage only runs forward: nothing of it moves, in any mode, and the others learn on what it gives."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.serial import build_stages, step_function
from pipeline.stage.phases import Phases
from tests.pipeline.small import STEPS_PER_EPOCH, same, small_config, state, views


@pytest.mark.parametrize("mode", ["simultaneous", "sequential", "end_to_end"])
@pytest.mark.parametrize("frozen", [(1,), (1, 3), (2,)])
def test_a_frozen_stage_keeps_weights_and_statistics(mode: str, frozen: tuple[int, ...]) -> None:
    config = small_config(mode=mode, stages={index: {"frozen": True} for index in frozen}, train={"epochs": 2})
    stages = build_stages(config, STEPS_PER_EPOCH)
    before = [state(stage) for stage in stages]
    step = step_function(config, stages, torch.device("cpu"))
    reports = [list(step(stages, views(number), number, [0.0] * 4)) for number in range(stages[0].phases.total_steps)]
    after = [state(stage) for stage in stages]
    assert [index for index in range(1, 5) if same(before[index - 1], after[index - 1])] == list(frozen)
    for each in reports:
        assert [report.frozen for report in each] == [index in frozen for index in range(1, len(each) + 1)]
        assert all(report.loss is None and not report.skipped for report in each if report.frozen)
    assert all(parameter.grad is None for index in frozen for parameter in stages[index - 1].parameters())
    assert all(not name.startswith(("head.", "optimizer.")) for index in frozen for name in after[index - 1])


def test_the_block_behind_a_frozen_one_learns_from_its_running_statistics() -> None:
    config = small_config(stages={1: {"frozen": True}})
    stages, alone = build_stages(config, STEPS_PER_EPOCH), build_stages(config, STEPS_PER_EPOCH)
    step = step_function(config, stages, torch.device("cpu"))
    list(step(stages, views(0), 0, [0.0] * 4))
    with torch.no_grad():
        given = torch.stack([alone[0].block.eval()(alone[0].inputs.prepared(view)) for view in views(0)])
    alone[1](given, 0, 0.0)
    alone[1].update(0)
    assert same(state(stages[1]), state(alone[1]))


def test_in_mode_sequential_a_frozen_block_has_no_turn() -> None:
    phases = Phases.of(small_config(mode="sequential", stages={2: {"frozen": True}}, train={"epochs": 2}), 2)
    assert [phases.learner(step) for step in range(12)] == [1] * 4 + [3] * 4 + [4] * 4
    assert phases.total_steps == 12
    assert [phases.local(5, stage) for stage in (1, 3, 4)] == [3, 1, 0]


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"stages": {index: {"frozen": True} for index in range(1, 5)}}, "all stages are frozen"),
        ({"stages": {4: {"frozen": True}}, "mode": "sequential"}, "no batch would reach it"),
        ({"stages": {4: {"frozen": True}}, "mode": "end_to_end"}, "the loss is at the last block"),
    ],
)
def test_what_cannot_be_trained_is_refused(sections: dict, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        small_config(**sections)
