"""Norms of gradient and update: the numbers by hand, of the whole stage with replicas, and no bit of the training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.serial import build_stages
from tests.marks import named
from tests.pipeline.replicas.replica_cases import ONE_BLOCK
from tests.pipeline.replicas.replica_team import Replicas
from tests.pipeline.small import STEPS_PER_EPOCH, batch_of, same, small_config, state, train

WAYS: dict[str, dict[str, Any]] = {
    "lars": {},
    "clipped": {"optimizer": {"kind": "sgd", "lr": 0.5, "clip_norm": 0.01, "warmup_epochs": 1}},
    "fp16": {"precision": {"dtype": "fp16"}, "model": {"cuts": ["layer1"], "width": 4}},  # slow on a CPU
    "byol": {"objective": {"kind": "byol"}},
    "sequential": {"mode": "sequential", "train": {"epochs": 2}},
    "end to end": {"mode": "end_to_end"},
}


def measuring(every: int, sections: dict[str, Any]) -> Any:
    return small_config(**{**sections, "metrics": {"norms_every": every}})


@pytest.mark.parametrize("sections", named(WAYS, long=["fp16"]))
def test_measuring_changes_no_bit(sections: dict[str, Any]) -> None:
    trained = []
    for every in (0, 1):
        config = measuring(every, sections)
        stages = build_stages(config, STEPS_PER_EPOCH)
        reports = train(config, 10 if config.mode == "sequential" else 4, stages)  # the second block learns after 8
        trained.append([state(stage) for stage in stages])
        found = [r.gradient_norm is not None for step in reports for r in step if not r.skipped and r.learning_rate]
        assert found
        assert all(found) if every else not any(found)
    assert all(same(*pair) for pair in zip(*trained, strict=True))


def test_the_norms_are_those_of_all_parameters_together() -> None:
    """Of the gradient before it is clipped, and of what the parameters moved by."""
    config = measuring(1, WAYS["clipped"])
    stages = build_stages(config, STEPS_PER_EPOCH)
    (stage, *_) = stages
    before = [p.detach().clone() for p in stage.parameters() if p.requires_grad]
    stage(batch_of(config, 0), 0, 0.0)
    stage.backward(0)
    parameters = [p for p in stage.parameters() if p.requires_grad]
    wanted = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).double().norm().item()
    report = stage.finish(0)
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(parameters, before, strict=True)])
    assert wanted > 0.01, "so that it is clipped"
    assert report.gradient_norm == pytest.approx(wanted, rel=1e-5)
    assert report.update_norm == pytest.approx(moved.double().norm().item(), rel=1e-5)


def test_they_are_measured_every_so_many_steps() -> None:
    reports = train(measuring(3, {}), 7)
    assert [step for step, (first, *_) in enumerate(reports) if first.gradient_norm is not None] == [0, 3, 6]
    assert [step for step, (*_, last) in enumerate(reports) if last.update_norm is not None] == [0, 3, 6]


def test_a_step_that_was_skipped_has_none() -> None:
    config = measuring(1, {})
    stages = build_stages(config, STEPS_PER_EPOCH)
    with torch.no_grad():
        next(stages[1].head.parameters()).fill_(float("nan"))
    for reports in train(config, 2, stages):
        assert reports[1].skipped
        assert (reports[1].gradient_norm, reports[1].update_norm) == (None, None)
        assert reports[0].gradient_norm is not None


@pytest.mark.parametrize("shard", [False, True], ids=["whole", "spread"])
def test_replicas_give_the_number_of_the_whole_stage(replicas: Replicas, shard: bool) -> None:
    sections = {"model": ONE_BLOCK, "optimizer": {"kind": "adamw", "lr": 0.01, "warmup_epochs": 1}}
    spread = {**sections, "engine": {"shard_optimizer": shard}}
    alone = replicas.run(1, "norms", sections=sections)[0]["norms"]
    first, *others = (result["norms"] for result in replicas.run(3, "norms", sections=spread))
    torch.testing.assert_close(first, alone, rtol=1e-9, atol=0)
    assert bool((alone[1:] > 0).all()), "the learning rate of the first step is 0"
    assert all(bool((other == -1).all()) for other in others), "the first speaks for all"
