"""Floating-point operations of a step: those that PyTorch's own counter finds, counted once, and no bit is changed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.precision import Compute
from pipeline.serial import build_stages, step_function
from pipeline.stage.stage import Stage
from pipeline.stage.state import stage_tensors
from tests.pipeline.small import STEPS_PER_EPOCH, batch_of, small_config
from workers.control.step_report import StageTimes
from workers.stage import flops as counting
from workers.stage import plain_steps
from workers.stage.flops import StepFlops, peak_flops, peak_of
from workers.stage.plain_steps import PlainSteps
from workers.topology.rendezvous import link_spec

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

    class Noted(counting.Counting):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(counting, "Counting", Noted)
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
    with counting.Counting() as found:
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


AS_WRITTEN = [("barlow_twins", 1, True), ("barlow_twins", 2, False), ("byol", 2, True), ("vit", 1, True)]


@pytest.mark.long
@pytest.mark.parametrize(("kind", "index", "learns"), AS_WRITTEN)
def test_of_a_compiled_stage_the_step_as_it_is_written_is_counted(kind: str, index: int, learns: bool) -> None:
    """Without computing it: the operations are those of the stage that is not compiled."""
    written = small_config(**KINDS[kind])
    compiled = small_config(**KINDS[kind], precision={"compile": True})
    stage, times, flops = Stage(written, index, STEPS_PER_EPOCH), StageTimes(), StepFlops()
    batch = batch_of(written, 0, 8) if index == 1 else torch.ones(link_spec(written, index).shape)
    with flops.counted(stage, times, "forward"):
        (stage if learns else stage.relay)(batch, 0, 0.0)
    if learns:
        with flops.counted(stage, times, "update"):
            stage.update(0)
    before = torch.random.get_rng_state()
    found = PlainSteps(compiled, STEPS_PER_EPOCH).of_stage(index, batch.shape, batch.dtype, 0, learns=learns)
    assert found == times.flops > 0
    assert torch.equal(torch.random.get_rng_state(), before), "random numbers of the run are its own"


@pytest.mark.long
@pytest.mark.parametrize("mode", ["sequential", "end_to_end"])
def test_the_steps_of_a_run_in_one_process_too(mode: str) -> None:
    config = small_config(mode=mode, objective={"kind": "byol"})
    step, images = 3 if mode == "sequential" else 0, batch_of(small_config(), 0, 8)
    stages = build_stages(config, STEPS_PER_EPOCH)
    reports = step_function(config, stages, torch.device("cpu"))(stages, images, step, [0.0] * 4)
    seen = []
    for stage in stages[: stages[0].phases.learner(step)]:
        times = StageTimes()
        with StepFlops().counted(stage, times):
            next(reports)
        seen.append(times.flops)
    plain = PlainSteps(config, STEPS_PER_EPOCH)
    assert plain.of_all(images.shape, step) == seen
    assert sum(seen) > 0


def test_only_compiled_stages_are_counted_so_and_each_kind_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, times, flops, calls = Stage(small_config(), 1, STEPS_PER_EPOCH), StageTimes(), StepFlops(), list[str]()

    def count() -> int:
        calls.append("counted")
        return 7

    flops.add_compiled(stage, times, count, "kind")
    assert (times.flops, calls) == (0, [])
    settings = stage.compute.config.model_copy(update={"compile": True})
    monkeypatch.setattr(stage, "compute", Compute(settings, stage.compute.device, torch.float32))
    for kind in ("kind", "kind", "other"):
        flops.add_compiled(stage, times, count, kind)
    assert (times.flops, calls) == (21, ["counted"] * 2)


def test_a_network_that_cannot_be_counted_so_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_steps, "StageWithoutMemory", lambda *_, **__: 1 / 0)
    images = batch_of(small_config(), 0, 8)
    plain = PlainSteps(small_config(), STEPS_PER_EPOCH)
    assert plain.of_stage(1, images.shape, images.dtype, 0, learns=True) == 0
    assert plain.of_all(images.shape, 0) == [0] * 4


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
