"""What the digests of a step are of, and that the chain says whether all steps until then were equal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.replicas import ReplicaGroup
from pipeline.serial import build_stages
from pipeline.stage.digests import DIGESTED, StepDigests
from pipeline.stage.fold import Fold, as_text
from pipeline.stage.stage import Stage
from pipeline.stage.state import restore_stage, stage_counters, stage_tensors
from tests.pipeline.small import STEPS_PER_EPOCH, batch_of, small_config, state, train, views

CPU = torch.device("cpu")
EVERY_STEP = {"every": 1}


def of_run(steps: int = 3, **sections: Any) -> list[list[dict[str, str]]]:
    """By step and stage."""
    return [[report.digests for report in reports] for reports in train(small_config(**sections), steps)]


def digest(tensors: list[Tensor]) -> str:
    return as_text(Fold(CPU).of(tensors).tolist())


def test_they_are_of_what_came_in_the_loss_the_gradient_and_the_weights() -> None:
    stage = build_stages(small_config(digests=EVERY_STEP), STEPS_PER_EPOCH)[0]
    stage(views(0), 0, 0.0)
    loss = stage.backward(0)
    report = stage.finish(0)
    gradients = [p.grad for group in stage.optimizer.param_groups for p in group["params"]]
    assert report.digests["input"] == digest([views(0)])
    assert report.digests["loss"] == digest([loss])
    assert report.digests["gradient"] == digest(gradients)  # type: ignore[arg-type]
    assert report.digests["weights"] == digest([*stage.state_dict().values()])
    assert set(report.digests) == {*DIGESTED, "chain"}


def test_a_gradient_counts_as_the_optimizer_takes_it() -> None:
    clipped, whole = (of_run(1, digests=EVERY_STEP, optimizer={"clip_norm": norm}) for norm in (1e-3, None))
    for one, other in zip(clipped[0], whole[0], strict=True):
        assert one["loss"] == other["loss"]
        assert one["gradient"] != other["gradient"]


def test_the_last_step_of_every_so_many_is_recorded() -> None:
    recorded = [bool(stages[0]) for stages in of_run(6, digests={"every": 3})]
    assert recorded == [False, False, True, False, False, True]
    assert of_run(2) == [[{}] * 4] * 2, "none without"


def test_recording_changes_no_bit() -> None:
    plain, recorded = (build_stages(small_config(digests={"every": n}), STEPS_PER_EPOCH) for n in (0, 1))
    train(small_config(), 3, plain)
    train(small_config(digests=EVERY_STEP), 3, recorded)
    for one, other in zip(plain, recorded, strict=True):
        assert all(value.equal(state(other)[name]) for name, value in state(one).items())


def test_the_chain_is_of_all_recorded_steps() -> None:
    whole = of_run(3, digests=EVERY_STEP)
    assert whole == of_run(3, digests=EVERY_STEP)
    other = of_run(3, digests=EVERY_STEP, stages={2: {"optimizer": {"lr": 7.0}}})
    equal = [
        [one["chain"] == two["chain"] for one, two in zip(*steps, strict=True)]
        for steps in zip(whole, other, strict=True)
    ]
    # The warm-up begins at 0, so that the second step is the first to move the weights, and the third to show it.
    assert equal == [[True] * 4, [True, False, True, True], [True, False, False, False]]
    assert len({step[0]["chain"] for step in whole}) == 3


@pytest.mark.parametrize(
    "sections",
    [
        {"objective": {"kind": "byol", "predictor": [16]}},
        {"mode": "end_to_end", "objective": {"kind": "byol", "predictor": [16]}},
        {"memory": {"recompute": "views"}},
        {"memory": {"recompute": "units"}},
        {"precision": {"dtype": "bf16", "channels_last": True}},
        {"data": {"progressive": {"start_size": 8, "start_epoch": 0, "end_epoch": 2}}},
        {"data": {"views": [{"count": 2}, {"count": 1, "size": 8}]}},
    ],
    ids=lambda sections: " ".join(map(str, sections)),
)
def test_whatever_computes_is_recorded_and_repeats(sections: dict[str, Any]) -> None:
    config = small_config(digests=EVERY_STEP, **sections)
    runs = []
    for _ in range(2):
        stages = build_stages(config, STEPS_PER_EPOCH)
        runs.append([[r.digests for r in reports] for reports in train(config, 2, stages)])
    assert runs[0] == runs[1]
    whole = {*DIGESTED, "chain"}
    expected = [whole - {"loss"}] * 3 + [whole] if config.mode == "end_to_end" else [whole] * 4
    assert [set(found) for found in runs[0][0]] == expected
    assert runs[0][0] != runs[0][1]


def test_what_is_computed_again_is_recorded_once_and_equal() -> None:
    kept, views_again = (of_run(2, digests=EVERY_STEP, memory={"recompute": how}) for how in ("none", "views"))
    assert kept == views_again


def test_stages_that_do_not_learn_have_neither_loss_nor_gradient() -> None:
    frozen = of_run(1, digests=EVERY_STEP, stages={1: {"frozen": True}})[0]
    assert set(frozen[0]) == {"input", "weights", "chain"}
    assert set(frozen[1]) == {*DIGESTED, "chain"}
    sequential = of_run(4, digests=EVERY_STEP, mode="sequential", train={"max_steps": 2})
    assert [set(found) for found in sequential[3]] == [{"input", "weights", "chain"}, {*DIGESTED, "chain"}]
    assert sequential[3][0]["weights"] == sequential[2][0]["weights"]


def test_a_step_that_is_skipped_has_no_gradient() -> None:
    stage = Stage(small_config(digests=EVERY_STEP), 1, STEPS_PER_EPOCH)
    with torch.no_grad():
        next(stage.head.parameters()).fill_(float("nan"))  # type: ignore[union-attr]
    stage(views(0), 0, 0.0)
    report = stage.update(0)
    assert report.skipped
    assert set(report.digests) == {"input", "loss", "weights", "chain"}


def test_a_run_that_goes_on_goes_on_with_the_chain() -> None:
    config = small_config(model={"cuts": []}, digests=EVERY_STEP)
    (stage,), (other,) = (build_stages(config, STEPS_PER_EPOCH) for _ in range(2))
    train(config, 2, [stage])
    tensors = {name: tensor.clone() for name, tensor in stage_tensors(stage).items()}
    restore_stage(other, tensors, stage_counters(stage))
    assert [r.digests for (r,) in train(config, [2], [other])] == [r.digests for (r,) in train(config, [2], [stage])]
    (plain,) = build_stages(small_config(model={"cuts": []}), STEPS_PER_EPOCH)
    assert "digest_chain" not in stage_counters(plain)
    restore_stage(stage, tensors, stage_counters(plain))
    assert stage.digests.chain == "", "of a run that recorded none"


@dataclass(frozen=True)
class Together(ReplicaGroup):
    """Replicas in one process, the last of which sums up what the others have told."""

    told: list[Tensor] = field(default_factory=list)

    def total(self, x: Tensor) -> Tensor:
        self.told.append(x)
        return torch.stack(self.told).sum(0)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("sizes", [None, {"count": 1, "size": 8}, {"count": 1, "size": 9}])
def test_the_rows_of_replicas_sum_up_to_the_input_of_one(count: int, sizes: dict[str, int] | None) -> None:
    groups = {} if sizes is None else {"views": [{"count": 2}, sizes]}
    config = small_config(digests=EVERY_STEP, data=groups)
    whole = batch_of(config, 0, batch=6)
    (alone, *_) = build_stages(config, STEPS_PER_EPOCH)
    alone(whole, 0, 0.0)
    told = list[Tensor]()
    for rank in reversed(range(count)):  # the first one records, when all others have told
        team = Together(rank, count, told=told)
        digests = StepDigests(1, team, CPU)
        digests.begin(0)
        for view in alone.inputs.views(whole.chunk(count, dim=1)[rank], 0):
            digests.add_view(view)
        found = digests.taken(0)
        assert bool(found) == (rank == 0)
    assert found["input"] == alone.relayed(0).digests["input"]
