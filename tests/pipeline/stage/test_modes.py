"""Simultaneous, sequential, end to end: who learns when, from which gradient, and with any number of blocks."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.serial import build_stages
from pipeline.stage.phases import Phases
from pipeline.stage.report import StageReport
from tests.pipeline.small import STEPS_PER_EPOCH, same, small_config, state, train, views

TWO_BLOCKS = {"model": {"cuts": ["layer2"]}, "train": {"epochs": 2}}
PHASE = 2 * STEPS_PER_EPOCH


@dataclass(frozen=True)
class Sequential:
    """A run of two blocks, one after the other: states of both before, between and after their phases."""

    states: list[list[dict[str, torch.Tensor]]]
    reports: list[list[StageReport]]


@pytest.fixture(scope="module")
def sequential() -> Sequential:
    config = small_config(mode="sequential", **TWO_BLOCKS)
    stages = build_stages(config, STEPS_PER_EPOCH)
    assert Phases.of(config, STEPS_PER_EPOCH).steps == PHASE
    states, reports = [[state(stage) for stage in stages]], []
    for phase in (0, 1):
        reports += train(config, range(phase * PHASE, (phase + 1) * PHASE), stages)
        states.append([state(stage) for stage in stages])
    return Sequential(states, reports)


def test_sequential_trains_one_block_after_the_other(sequential: Sequential) -> None:
    untrained, between, after = sequential.states
    assert all(len(step) == 1 and step[0].loss is not None for step in sequential.reports[:PHASE])
    assert not same(between[0], untrained[0])
    assert same(between[1], untrained[1])
    assert not same(after[1], untrained[1])


def test_a_frozen_block_does_not_change_and_is_the_one_of_a_simultaneous_run(sequential: Sequential) -> None:
    assert [report.loss is None for report in sequential.reports[PHASE]] == [True, False]
    config = small_config(**TWO_BLOCKS)
    together = build_stages(config, STEPS_PER_EPOCH)
    train(config, PHASE, together)
    assert same(sequential.states[2][0], state(together[0]))
    assert not same(sequential.states[2][1], state(together[1]))


def test_every_block_has_its_own_warm_up_and_schedule(sequential: Sequential) -> None:
    rates = [step[-1].learning_rate for step in sequential.reports]
    assert rates[:PHASE] == rates[PHASE:]
    assert rates[0] == 0.0
    assert len(set(rates[:PHASE])) > 3


def test_max_steps_cuts_every_block_short_and_leaves_the_schedule() -> None:
    config = small_config(mode="sequential", train={"max_steps": 3})
    phases = Phases.of(config, STEPS_PER_EPOCH)
    assert (phases.total_steps, phases.schedule_steps) == (12, 12)
    assert [phases.learner(step) for step in range(12)] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert [phases.local(7, stage) for stage in (1, 2, 3, 4)] == [2, 2, 1, 0]


def gsp(**more: object) -> dict[str, object]:
    return {"kind": "gsp", "projector": [16, 16], **more}


@pytest.mark.parametrize("objective", ["barlow_twins", "simclr", "vicreg", "byol"])
def test_end_to_end_is_the_uncut_network(objective: str) -> None:
    """Two blocks with one loss learn, to the bit, what one block with that loss learns."""
    loss: dict[str, object] = {"kind": objective}
    if objective == "byol":
        loss["predictor"] = [16, 16]
    cut = small_config(mode="end_to_end", model={"cuts": ["layer2"]}, head=gsp(), objective=loss)
    whole = small_config(model={"cuts": []}, head=gsp(), objective=loss)
    blocks, one = build_stages(cut, STEPS_PER_EPOCH), build_stages(whole, STEPS_PER_EPOCH)
    if objective == "byol":  # the predictor is drawn for its stage
        blocks[1].objective.load_state_dict(one[0].objective.state_dict())
    losses = [step[-1].loss for step in train(cut, 4, blocks)]
    assert losses == [step[-1].loss for step in train(whole, 4, one)]
    joined = {**blocks[0].block.state_dict(), **blocks[1].block.state_dict()}
    assert same(joined, one[0].block.state_dict())
    if objective == "byol":
        ours, theirs = (torch.cat([p.flatten() for p in s.target.parameters()]) for s in (blocks[1], one[0]))
        assert torch.equal(ours, theirs)


def test_end_to_end_has_one_loss() -> None:
    config = small_config(mode="end_to_end")
    stages = build_stages(config, STEPS_PER_EPOCH)
    before = [state(stage) for stage in stages]
    reports = train(config, 2, stages)
    assert [report.loss is None for report in reports[1]] == [True, True, True, False]
    assert [stage.head is None for stage in stages] == [True, True, True, False]
    assert not any(same(state(stage), old) for stage, old in zip(stages, before, strict=True))


def test_no_gradient_crosses_a_boundary() -> None:
    config = small_config()
    stages = build_stages(config, STEPS_PER_EPOCH)
    activations = views(0)
    for stage in stages:
        activations = stage(activations, 0, 0.0)
        assert not activations.requires_grad
    stages[-1].backward(0)
    assert all(parameter.grad is None for stage in stages[:-1] for parameter in stage.parameters())


@pytest.mark.parametrize(
    "cuts", [[], ["layer2"], ["layer1", "layer2", "layer3"],
             ["stem", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0"]]
)  # fmt: skip
def test_any_number_of_blocks_trains(cuts: list[str]) -> None:
    config = small_config(model={"cuts": cuts})
    reports = train(config, 2)
    assert [report.loss is not None for report in reports[1]] == [True] * (len(cuts) + 1)


def test_different_objectives_at_different_blocks() -> None:
    config = small_config(
        stages={
            "1": {"objective": {"kind": "simclr"}},
            "2": {"objective": {"kind": "vicreg"}, "head": {"kind": "gsp"}},
            "3": {"objective": {"kind": "byol", "predictor": [16]}, "optimizer": {"kind": "adamw", "lr": 0.001}},
            "4": {"objective": {"kind": "supervised"}, "head": {"projector": [4]}},
        }
    )
    stages = build_stages(config, STEPS_PER_EPOCH)
    reports = train(config, 3, stages)
    assert [type(stage.objective).__name__ for stage in stages] == ["SimCLR", "VICReg", "BYOL", "Supervised"]
    assert all(report.loss is not None and not report.skipped for step in reports for report in step)
    assert "accuracy" in reports[0][3].terms


def test_a_negative_patch_is_a_third_view_for_the_losses_that_use_it() -> None:
    config = small_config(stages={"2": {"objective": {"kind": "simclr", "negatives": "single_patch"}}})
    assert config.num_views == 3
    reports = train(config, 2)
    assert all(report.loss is not None for report in reports[1])


def test_sequential_needs_blocks() -> None:
    with pytest.raises(ConfigError, match=r"mode: 'sequential' .* one block.*model\.cuts"):
        small_config(mode="sequential", model={"cuts": []})
