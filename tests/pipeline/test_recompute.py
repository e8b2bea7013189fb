"""What is computed again gives the bits of what is kept: every loss, head, network, number format and mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.config import Config
from pipeline.measures.online import online_measures
from pipeline.precision import LossScaler
from pipeline.replicas import SOLO
from pipeline.serial import build_stages, end_to_end_step, serial_step
from pipeline.stage.stage import Stage
from tests.benchmarks.common.kept_bytes import kept_bytes
from tests.marks import slow
from tests.pipeline.replicas.test_replicas import LARGE_AND_SMALL, OBJECTIVES, SETTINGS
from tests.pipeline.small import STEPS_PER_EPOCH, batch_of, same, small_config, state, views

pytestmark = pytest.mark.long

OTHERS: dict[str, dict[str, Any]] = {
    "bottlenecks": {  # 64 pixels, because PyTorch's bf16 convolutions of maps of one pixel do not repeat themselves
        "model": {"backbone": "resnet50", "width": 8, "stem": "imagenet", "zero_init_residual": False},
        "data": {"image_size": 64},
    },
    "draws": {
        "model": {"backbone": "tests.pipeline.replicas.replica_cases:dropping", "output": "6", "cuts": ["3"]},
        "noise": {"kind": "all"},
    },
    "traced": {
        "model": {"backbone": "torchvision.models:shufflenet_v2_x0_5", "output": "conv5", "cuts": ["stage2.1"]},
        "noise": {"kind": "c"},
        "data": {"image_size": 32},
    },
    "in place": {"model": {"backbone": f"{__name__}:in_place", "output": "9", "cuts": ["4"]}, "noise": {"kind": "hw"}},
    "four views": {"noise": {"kind": "all"}, "data": LARGE_AND_SMALL},
    "end to end": {"mode": "end_to_end", "noise": {"kind": "all"}},
    "end to end, byol": {"mode": "end_to_end", "objective": {"kind": "byol", "predictor": [16, 16]}},
    "sequential": {
        "mode": "sequential", "noise": {"kind": "all"}, "train": {"max_steps": 1}, "optimizer": {"warmup_epochs": 0}
    },
    "in slices": {"head": {"chunk": 3}, "noise": {"kind": "all"}},
}  # fmt: skip
EVERY = {**OBJECTIVES, **SETTINGS, **OTHERS}
QUICK = [("byol", "bf16"), ("transformer", "fp16"), ("draws", "fp32"), ("in place", "fp32"), ("four views", "bf16")]
QUICK += [("bottlenecks", "fp32"), ("end to end", "bf16"), ("sequential", "fp32"), ("in slices", "bf16")]
CASES = [
    *QUICK,
    *(slow(name, dtype) for name in EVERY for dtype in ("fp32", "bf16", "fp16") if (name, dtype) not in QUICK),
]


def in_place() -> nn.Module:
    """Operations in place at the beginning of what would be units."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Hardswish(inplace=True), nn.BatchNorm2d(8), nn.Hardswish(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1), nn.LeakyReLU(inplace=True), nn.Conv2d(8, 8, 1),
        nn.Dropout(0.3, inplace=True), nn.Hardswish(inplace=True), nn.Conv2d(8, 8, 1),
    )  # fmt: skip


def trained(config: Config, steps: int) -> list[dict[str, Tensor]]:
    """The state of every stage after some steps in which nothing overflows, with noise."""
    stages = build_stages(config, STEPS_PER_EPOCH)
    shared = {}
    for stage in stages:
        if stage.scaler is not None:
            stage.scaler = LossScaler(torch.device("cpu"), [stage.optimizer], initial_scale=16.0)
    if config.mode == "end_to_end" and stages[0].scaler is not None:
        every = [stage.optimizer for stage in stages]
        shared = {"scaler": LossScaler(torch.device("cpu"), every, initial_scale=16.0)}
    one_step: Any = end_to_end_step if config.mode == "end_to_end" else serial_step
    labels = torch.arange(8) % 4 if config.uses_labels else None
    for step in range(steps):
        reports = list(one_step(stages, batch_of(config, step), step, [0.25] * len(stages), labels=labels, **shared))
        assert not any(report.skipped for report in reports)
    return [state(stage) for stage in stages]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_the_trained_bits_are_those_of_keeping_everything(name: str, dtype: str) -> None:
    """Weights, momentum and running statistics, in the order of the views too: every sum has its order of terms."""
    sections = {**EVERY[name], "precision": {**EVERY[name].get("precision", {}), "dtype": dtype}}
    steps = 4 if name == "sequential" else 2
    expected = trained(small_config(**sections), steps)
    for recompute in ("units", "views"):
        found = trained(small_config(**sections, memory={"recompute": recompute}), steps)
        for index, (one, other) in enumerate(zip(expected, found, strict=True), 1):
            assert same(one, other), f"{recompute}, stage {index}"


def spectral() -> nn.Module:
    """Every forward pass moves an estimate of the norm of a weight, and computes with it."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), spectral_norm(nn.Conv2d(8, 8, 3)), nn.ReLU())


def test_a_buffer_that_a_forward_pass_reads_and_moves_is_what_it_was() -> None:
    sections = {"model": {"backbone": f"{__name__}:spectral", "output": "3", "cuts": []}, "noise": {"kind": "all"}}
    kept, again = (trained(small_config(**sections, memory={"recompute": r}), 3) for r in ("none", "units"))
    assert same(kept[0], again[0])


def test_what_is_measured_while_training_is_measured_once() -> None:
    online = {"evaluation": {"online": {"quality_every": 1, "quality_samples": 16}}, "noise": {"kind": "all"}}
    measured = []
    for recompute in ("none", "units", "views"):
        config = small_config(**online, memory={"recompute": recompute})
        stage = Stage(config, 1, STEPS_PER_EPOCH)
        stage.online = online_measures(config, 1, 4, STEPS_PER_EPOCH, stage.compute, SOLO)
        collected: list[int] = []
        collect = stage.online.collect

        def note(number: int, output: Tensor, collect: Any = collect, collected: list[int] = collected) -> None:
            collected.append(number)
            collect(number, output)

        stage.online.collect = note
        stage(views(0), 0, 0.25)
        stage.update(0)
        assert collected == [1, 2], recompute
        measured.append(stage.online.measure(0, None))
    assert measured[0] == measured[1] == measured[2]


def test_stages_may_differ() -> None:
    config = {"noise": {"kind": "all"}, "precision": {"dtype": "bf16"}}
    mixed = small_config(
        **config, stages={1: {"memory": {"recompute": "views"}}, 3: {"memory": {"recompute": "units"}}}
    )
    assert all(same(*pair) for pair in zip(trained(small_config(**config), 2), trained(mixed, 2), strict=True))


def kept_by(config: Config, index: int) -> int:
    stage = Stage(config, index, STEPS_PER_EPOCH)
    given = views(0, size=config.data.image_size, batch=config.data.batch_size)
    if index > 1:
        with torch.no_grad():
            previous = build_stages(config, STEPS_PER_EPOCH)
            for before in previous[: index - 1]:
                given = before(given, 0, 0.25)

    def step() -> None:
        stage(given, 0, 0.25)
        stage.update(0)

    return kept_bytes(stage, step)


RESNET50 = {
    "model": {"backbone": "resnet50", "width": 8, "stem": "imagenet"},
    "head": {"width": 256, "projector": [16]},
    "data": {"batch_size": 4, "image_size": 224},
    "noise": {"kind": "all"},
    "precision": {"dtype": "bf16"},
}
"""An eighth of its width everywhere, so that what one tensor is to another stays."""


@pytest.mark.parametrize("index", [1, 2, 3, 4])
def test_a_block_of_a_resnet50_with_noise_keeps_a_fraction(index: int) -> None:
    kept = {r: kept_by(small_config(**RESNET50, memory={"recompute": r}), index) for r in ("none", "units", "views")}
    assert kept["none"] > 3.5 * kept["units"], kept
    assert kept["none"] > 50 * kept["views"], "before the backward pass nothing is kept but for the loss"


def test_layers_of_a_transformer_keep_an_eighth() -> None:
    sections = {
        "model": {"backbone": "vit_b_16", "hidden_dim": 96, "num_layers": 12, "num_heads": 12, "cuts": []},
        "head": {"kind": "gsp", "projector": [16]},
        "data": {"batch_size": 2, "image_size": 224},
    }  # fmt: skip
    none, units = (kept_by(small_config(**sections, memory={"recompute": r}), 1) for r in ("none", "units"))
    assert none > 8 * units, none / units


def test_a_target_network_keeps_nothing() -> None:
    byol = {"objective": {"kind": "byol", "predictor": [16, 16]}, "memory": {"recompute": "units"}}
    stage = Stage(small_config(**byol), 1, STEPS_PER_EPOCH)
    assert stage.target is not None
    assert kept_bytes(stage, lambda: stage.target([torch.randn(2, 3, 16, 16)])) == 0
