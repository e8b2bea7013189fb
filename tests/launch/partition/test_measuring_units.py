"""Every unit and every end that a stage can have is measured, each kind once."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from launch.partition.costs import EndCost, UnitCost
from launch.partition.counting import count
from launch.partition.finest import cut_everywhere
from launch.partition.measuring_units import UnitMeasurement
from pipeline.config import Config
from tests.launch.partition.small_runs import small_run, ticking

Measured = tuple[dict[int, tuple[UnitCost, ...]], dict[tuple[int, int], EndCost]]


def measured(config: Config, *stages: int, told: list[str] | None = None) -> Measured:
    """In no time: a few images of each."""
    return UnitMeasurement(
        cut_everywhere(config),
        stages,
        torch.device("cpu"),
        deadline=time.monotonic(),
        clock=ticking(),
        tell=lambda text, done, total: None if told is None else told.append(f"{text} {done}/{total}"),
    ).run()


def test_alike_units_and_ends_are_measured_once() -> None:
    told: list[str] = []
    units, ends = measured(small_run(model={"backbone": "resnet34", "cuts": []}), 1, 2, told=told)
    names = small_run(model={"backbone": "resnet34", "cuts": []}).model.units()
    assert [unit.unit for unit in units[1]] == names
    assert units[1] == units[2]
    kinds = ["stem", *(f"layer{layer}.{unit}" for layer in (1, 2, 3, 4) for unit in (0, 1))]
    texts = [text.rpartition(" ")[0] for text in told]
    assert [text for text in texts if not text.startswith("head")] == kinds
    heads = ["layer1.0", "layer2.0", "layer3.0", "layer4.0"]  # the stem's maps are those of layer1
    assert [text for text in texts if text.startswith("head")] == [f"head and loss after {name}" for name in heads]
    assert [text.rpartition(" ")[2] for text in told] == [f"{done}/{len(told)}" for done in range(len(told))]
    assert ends.keys() == {(stage, last) for stage in (1, 2) for last in range(stage - 1, len(names))}


def test_times_are_for_an_image_with_all_of_its_views() -> None:
    (units, ends) = measured(small_run(data={"views": [{"count": 3}]}), 1)
    stem, first, *_, last = units[1]
    assert first.forward == last.forward == 3 / 4, "three views, each of a second by that clock, of four images"
    assert stem.forward == 6 / 4, "and their normalisation"
    assert (stem.input_gradient, last.output) == (0, 0)
    assert first.backward == 3 / 4
    assert all(end.forward > 0 and end.backward > 0 and end.loss > 0 for end in ends.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head": {"kind": "gsp", "width": None, "projector": [24]}, "noise": {"kind": "all", "std": 0.1}},
        {"objective": {"kind": "byol"}, "optimizer": {"kind": "adamw", "lr": 0.001}},
        {"data": {"views": [{"count": 2}, {"count": 1, "size": 8}]}},
        {"model": {"backbone": "vit_b_16", "patch_size": 4, "hidden_dim": 24, "num_layers": 3, "num_heads": 2,
                   "mlp_dim": 48, "stem": None, "width": None}},
    ],
)  # fmt: skip
@pytest.mark.long
def test_sizes_are_those_that_are_counted_without_computing(changes: dict[str, Any]) -> None:
    config = small_run(**changes)
    (units, ends), counted = measured(config, 1), count(config, [1], cuda=False)
    more = counted.batches[0] - counted.batches[1]
    for unit, calls in zip(units[1], counted.units[1], strict=True):
        assert (unit.parameters, 8 * unit.output) == (calls[0].parameters, calls[0].output)
        kept = (calls[0].kept - calls[1].kept) / more  # statistics of batch norm are of no image
        assert unit.kept == pytest.approx(kept, rel=0.01)  # a few bytes may be rounded up
    for place, end in ends.items():
        whole, fewer = counted.ends[place]
        assert end.parameters == whole.parameters
        with_loss = (whole.kept - fewer.kept) / more
        assert end.kept <= with_loss <= end.kept + 2000, "a loss of embeddings of 16 or 24 numbers keeps little"


def test_what_is_overridden_for_a_stage_is_measured_for_it() -> None:
    config = small_run(stages={2: {"head": {"width": 32}}, 3: {"optimizer": {"kind": "adamw", "lr": 0.001}}})
    told: list[str] = []
    units, ends = measured(config, 1, 2, 3, told=told)
    assert ends[2, 3].parameters > ends[1, 3].parameters == ends[3, 3].parameters
    assert units[1] == units[2]
    assert sum(text.startswith("layer4.1") for text in told) == 2, "with each optimizer"
    assert sum("head and loss after layer4.0" in text for text in told) == 3


def test_a_frozen_stage_only_runs_forward() -> None:
    units, ends = measured(small_run(stages={1: {"frozen": True}}), 1, 2)
    assert all(unit.forward > 0 and unit.backward == unit.step == unit.kept == 0 for unit in units[1])
    assert (ends[1, 0].forward > 0, ends[1, 0].backward, ends[1, 0].loss, ends[1, 0].step) == (True, 0, 0, 0)
    assert all(unit.backward > 0 for unit in units[2])


def test_a_network_of_the_users_own_is_measured_wherever_it_can_be_cut() -> None:
    model = {"backbone": "torchvision.models:squeezenet1_1", "output": "features", "width": None, "stem": None}
    config = small_run(data={"image_size": 32}, model=model)
    units, ends = measured(config, 1)
    assert len(units[1]) > 1
    assert [unit.output > 0 for unit in units[1]] == [True] * (len(units[1]) - 1) + [False]
    assert ends.keys() == {(1, last) for last in range(len(units[1]))}
