"""Floating-point operations of a step: those that PyTorch's own counter finds, counted once, and no bit is changed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.precision import Compute
from pipeline.stage.stage import Stage
from pipeline.stage.state import stage_tensors
from tests.pipeline.small import STEPS_PER_EPOCH, batch_of, small_config
from workers.control.step_report import StageTimes
from workers.stage import flops as counting
from workers.stage.flops import StepFlops, peak_flops, peak_of

KINDS: dict[str, dict[str, Any]] = {
    "barlow_twins": {},
    "byol": {"objective": {"kind": "byol"}},
    "bf16": {"precision": {"dtype": "bf16"}},
    "computed again": {"memory": {"recompute": "views"}},
    "units again": {"memory": {"recompute": "units"}},
    "vit": {
        "model": {
            "backbone": "vit_b_16", "patch_size": 8, "hidden_dim": 24, "num_layers": 3, "num_heads": 2, "cuts": [],
        },
        "optimizer": {"kind": "adamw", "lr": 0.01, "warmup_epochs": 1},
    },
}  # fmt: skip


def one_step(stage: Stage, step: int, flops: StepFlops | None, times: StageTimes, batch: int = 8) -> None:
    images = batch_of(small_config(), step, batch)
    if flops is None:
        stage(images, step, 0.0)
        stage.update(step)
        return
    with flops.counted(stage, times, "forward", images.shape):
        stage(images, step, 0.0)
    with flops.counted(stage, times, "update", images.shape):
        stage.update(step)


@pytest.mark.parametrize("sections", [KINDS[k] for k in KINDS if k != "vit"], ids=[k for k in KINDS if k != "vit"])
def test_they_are_those_of_pytorchs_own_counter(sections: dict[str, Any]) -> None:
    config = small_config(**sections)
    times = StageTimes()
    one_step(Stage(config, 1, STEPS_PER_EPOCH), 0, StepFlops(), times)
    with FlopCounterMode(display=False) as reference:
        one_step(Stage(config, 1, STEPS_PER_EPOCH), 0, None, StageTimes())
    assert times.flops == reference.get_total_flops() > 0


@pytest.mark.parametrize("sections", KINDS.values(), ids=list(KINDS))
def test_a_step_that_is_counted_has_the_bits_of_one_that_is_not(sections: dict[str, Any]) -> None:
    trained = []
    for flops in (None, StepFlops()):
        stage = Stage(small_config(**sections), 1, STEPS_PER_EPOCH)
        for step in range(3):
            one_step(stage, step, flops, StageTimes())
        trained.append(stage_tensors(stage))
    plain, counted = trained
    assert plain.keys() == counted.keys()
    assert all(torch.equal(plain[name], counted[name]) for name in plain)


def test_every_kind_of_step_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Noted(counting._Counting):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(counting, "_Counting", Noted)
    stage, times, flops = Stage(small_config(), 1, STEPS_PER_EPOCH), StageTimes(), StepFlops()
    totals = [0.0]
    for step, batch in enumerate((8, 8, 4, 8, 4)):
        one_step(stage, step, flops, times, batch)
        totals.append(times.flops)
    whole, again, half, last, small = (after - before for before, after in pairwise(totals))
    assert len(made) == 4, "forward and update, of a whole and of a smaller batch"
    assert whole == again == last > half == small > 0


def test_attention_is_counted_on_a_cpu_too() -> None:
    query = torch.zeros(2, 3, 5, 7, requires_grad=True)
    with counting._Counting() as found:
        torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()
    product = 2 * (2 * 3) * 5 * 5 * 7
    assert found.flops >= 2 * product + 4 * product, "two products forward, four backward"


def test_a_compiled_stage_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a dispatch mode it would run as it is written, which rounds in another way."""
    stage, times = Stage(small_config(), 1, STEPS_PER_EPOCH), StageTimes()
    settings = stage.compute.config.model_copy(update={"compile": True})
    monkeypatch.setattr(stage, "compute", Compute(settings, stage.compute.device, torch.float32))
    one_step(stage, 0, StepFlops(), times)
    assert times.flops == 0


CARDS = {
    "NVIDIA A100-SXM4-80GB": (312, 156, 19.5),
    "NVIDIA A100 80GB PCIe": (312, 156, 19.5),
    "NVIDIA H100 80GB HBM3": (989, 494, 67),
    "NVIDIA H100 PCIe": (756, 378, 51),
    "NVIDIA H200": (989, 494, 67),
    "NVIDIA L4": (121, 60.5, 30.3),
    "NVIDIA L40S": (362, 183, 91.6),
    "Tesla V100-SXM2-16GB": (125, 15.7, 15.7),
    "NVIDIA GeForce RTX 4090": (165, 82.6, 82.6),
}


@pytest.mark.parametrize("card", CARDS)
def test_the_peak_of_a_card_is_that_of_the_precision(card: str) -> None:
    found = [peak_of(card, half=True, tf32=False), peak_of(card, half=False, tf32=True), peak_of(card, False, False)]
    assert found == [1e12 * peak for peak in CARDS[card]]


@pytest.mark.parametrize("card", ["NVIDIA A100-SXM4-80GB MIG 1g.10gb", "NVIDIA GeForce RTX 4090 Ti", "AMD MI300X", ""])
def test_of_a_part_of_a_card_or_another_nothing_is_made_up(card: str) -> None:
    assert peak_of(card, half=True, tf32=False) is None


def test_a_cpu_has_no_known_peak() -> None:
    assert peak_flops(Stage(small_config(), 1, STEPS_PER_EPOCH).compute) is None
