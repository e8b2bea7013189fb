"""A timed step is a step of the run, of which every moment belongs to one part."""

from __future__ import annotations

from copy import deepcopy
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor

from launch.partition.finest import cut_everywhere
from launch.partition.timed_steps import TimedStage, repeated
from pipeline.config import Config
from pipeline.stage.stage import Stage
from tests.launch.partition.small_runs import small_run, ticking
from workers.stage.device_clock import DeviceClock

PARTS = {
    "forward", "images", "unit", "update", "head", "loss", "backward of the loss", "backward of the end",
    "backward of the unit", "optimizer",
}  # fmt: skip
ROWS = 4


def stage_of(config: Config, index: int) -> Stage:
    return Stage(cut_everywhere(config), index, 1000)


def images(views: int = 2) -> list[Tensor]:
    source = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (ROWS, 16, 16, 3), dtype=torch.uint8, generator=source) for _ in range(views)]


@pytest.mark.parametrize("objective", [{"kind": "barlow_twins"}, {"kind": "byol"}, {"kind": "simclr"}])
def test_every_moment_of_a_step_belongs_to_one_part(objective: dict[str, Any]) -> None:
    readings: list[float] = []
    ticks = count()

    def now() -> float:
        readings.append(float(next(ticks)))
        return readings[-1]

    timed = TimedStage(stage_of(small_run(objective=objective), 1), DeviceClock(now=now))
    before = len(readings)
    seconds = timed.step(images(), 1, 1.0, inside=False)
    assert sum(seconds.values()) == readings[-1] - readings[before + 1], "the first is from before the device was idle"
    assert seconds.keys() == (PARTS | {"target"} if objective["kind"] == "byol" else PARTS)
    assert seconds["unit"] == seconds["images"] == 2, "one for each view"


def test_a_timed_step_has_the_gradients_of_a_step_and_moves_no_weight() -> None:
    config = small_run(noise={"kind": "all", "std": 0.1})
    plain, timed = stage_of(config, 1), TimedStage(stage_of(config, 1), ticking())
    before = deepcopy(list(timed.stage.parameters()))
    plain(images(), 3, 0.1)
    plain.backward(3)
    for inside in (False, True):
        timed.step(images(), 3, 0.1, inside=inside)
        for expected, same, found in zip(plain.parameters(), before, timed.stage.parameters(), strict=True):
            assert expected.grad is not None
            assert found.grad is not None
            assert torch.equal(expected.grad, found.grad)
            assert torch.equal(same, found)


def test_inside_of_a_stage_the_gradient_of_the_input_is_a_part_of_the_unit() -> None:
    timed = TimedStage(stage_of(small_run(), 3), ticking())
    views = [torch.rand(ROWS, 8, 16, 16) for _ in range(2)]
    inside, beginning = (timed.step(views, 1, inside=inside) for inside in (True, False))
    assert inside["backward of the unit"] == 2, "each view's ends with the gradient of its input"
    assert not any(view.requires_grad for view in views)
    assert beginning["backward of the unit"] == 2, "the second begins when the noise of its view is done"


def test_the_optimizer_of_the_end_leaves_the_block_without_gradients() -> None:
    timed = TimedStage(stage_of(small_run(), 1), ticking())
    timed.step(images(), 1, inside=False)
    assert timed.optimizer_of_end() == 1
    assert all(p.grad is None for p in timed.stage.block.parameters())
    assert timed.stage.head is not None
    assert all(p.grad is not None for p in timed.stage.head.parameters())


def test_a_loss_of_more_images_is_that_of_the_same_images_again() -> None:
    seen: list[tuple[int, ...]] = []
    stage = stage_of(small_run(), 1)
    timed = TimedStage(stage, ticking())
    assert stage.objective is not None
    stage.objective.register_forward_pre_hook(lambda _, given: seen.extend(z.shape for z in given[0].views))
    timed.step(images(), 1, inside=False)
    timed.loss(10)
    assert seen == [(ROWS, 16)] * 2 + [(10, 16)] * 2


def test_rows_are_repeated_or_left_out() -> None:
    rows = torch.arange(3).unsqueeze(1)
    assert repeated(rows, 7).flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert repeated(rows, 2).flatten().tolist() == [0, 1]
