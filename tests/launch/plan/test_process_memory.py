"""What is said that a process takes, against what PyTorch's allocator hands out while it runs for real."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from launch.plan.live_bytes import LiveBytes, cast_copies
from launch.plan.process_memory import process_memory
from pipeline.config import Config
from tests.launch.plan.measured import measured_peak
from tests.marks import slow
from tests.pipeline.replicas.replica_team import Replicas
from tests.pipeline.small import small_config
from workers.determinism.child import run_in_child

pytestmark = pytest.mark.processes
LIMIT = 200.0
"""Seconds for a child."""

SHARE = 0.02
"""Of the measured peak, by which the account may be off."""

WIDE = {"model": {"backbone": "resnet18", "width": 32, "stem": "cifar"}, "data": {"batch_size": 32, "image_size": 32}}
ADAM = {"kind": "adamw", "warmup_epochs": 1}
VIT = {
    "backbone": "vit_b_16",
    "patch_size": 8,
    "hidden_dim": 64,
    "num_heads": 4,
    "num_layers": 2,
    "mlp_dim": 128,
    "cuts": ["encoder.layers.encoder_layer_0"],
}
OWN = {"backbone": "tests.pipeline.backbones.networks_for_cutting:Functional", "output": "second", "cuts": ["first"]}
CASES: dict[str, dict[str, Any]] = {
    "noise": {"noise": {"kind": "all"}},
    "bf16": {"precision": {"dtype": "bf16"}, "noise": {"kind": "all"}},
    "fp16": {"precision": {"dtype": "fp16"}},
    "channels last": {"precision": {"channels_last": True}},
    "transformer": {"model": VIT, "optimizer": ADAM},
    "target network": {"objective": {"kind": "byol"}},
    "views of several sizes": {"data": {"views": [{"count": 2}, {"count": 2, "size": 16}]}},
    "one loss": {"mode": "end_to_end", "objective": {"kind": "simclr"}},
    "one process": {"runtime": "serial", "objective": {"kind": "vicreg"}},
    "stages that share a process": {"processes": 2, "link": {"codec": "int8"}, "objective": {"kind": "supervised"}},
    "units again": {"memory": {"recompute": "units"}, "noise": {"kind": "all"}},
    "views again": {"memory": {"recompute": "views"}, "noise": {"kind": "all"}},
    "one block after the other": {"mode": "sequential"},
    "a network of the user's own": {"model": OWN},
    "a probe and a bank of features": {"evaluation": {"online": {"linear": True, "knn_bank": 4096}}},
    "the same in one process": {"runtime": "serial", "evaluation": {"online": {"linear": True, "knn_bank": 4096}}},
    "stages that differ": {"stages": {2: {"precision": {"dtype": "bf16"}, "optimizer": ADAM}}},
}


@pytest.mark.parametrize("case", ["noise", "views again", slow("one loss"), slow("stages that share a process")])
def test_the_peak_is_that_of_the_tensors_of_a_real_process(case: str) -> None:
    compare(case, workspaces=False)


@pytest.mark.slow
@pytest.mark.skipif("AVX512" not in torch.backends.cpu.get_cpu_capability(), reason="workspaces are those of AVX-512")
@pytest.mark.parametrize("case", CASES)
def test_with_the_workspaces_of_kernels_it_is_what_the_allocator_hands_out(case: str) -> None:
    compare(case, workspaces=True)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "units", "views"])
def test_a_replica_takes_what_it_is_said_to(replicas: Replicas, recompute: str) -> None:
    """Two processes that sum their gradients and join their statistics over Gloo."""
    values = {**WIDE, "memory": {"recompute": recompute}, "noise": {"kind": "all"}, "replicas": 2}
    seen = [int(result["peak"]) for result in replicas.run(2, "peak_of_a_step", values=values)]
    peak, _ = account(small_config(**values), [2], False)
    assert abs(peak - seen[0]) <= SHARE * seen[0], f"{peak:,} bytes said, {seen[0]:,} handed out"


def test_autocast_of_cuda_keeps_more_of_a_transformer() -> None:
    half = small_config(**{**WIDE, "model": VIT, "optimizer": ADAM, "precision": {"dtype": "bf16"}})
    (peak, kept), (on_gpu, kept_on_gpu) = account(half, [2], False), account(half, [2], cuda=True)
    assert kept_on_gpu > 1.2 * kept  # float32 copies of what enters four layer norms
    assert on_gpu > peak
    for config in (small_config(**WIDE), small_config(**WIDE, precision={"dtype": "bf16"})):
        assert account(config, [2], False) == account(config, [2], cuda=True)


def test_what_is_multiplied_by_a_mask_takes_a_copy_of_it_on_the_cpu_alone() -> None:
    mask, scale = torch.ones(64, dtype=torch.bool), torch.ones(64)
    assert cast_copies(torch.ops.aten.mul.Tensor, (mask, scale)) == scale.nbytes
    assert cast_copies(torch.ops.aten.mul.Tensor, (scale, scale)) == 0
    assert cast_copies(torch.ops.aten.mul.Tensor, (scale, torch.tensor(2, dtype=torch.int64))) == 0
    assert cast_copies(torch.ops.aten.mul.Tensor, (torch.tensor(True), torch.tensor(2.0))) == 0
    assert cast_copies(torch.ops.aten.where.self, (mask, scale, scale)) == 0
    for casts, more in ((True, scale.nbytes), (False, 0)):
        with LiveBytes(casts=casts) as live:
            product = mask * scale
        assert live.peak == product.nbytes + more


@pytest.mark.parametrize("recompute", ["units", "views"])
def test_recomputing_is_seen(recompute: str) -> None:
    (peak, kept), (less_peak, less_kept) = (
        account(small_config(**WIDE, noise={"kind": "all"}, memory={"recompute": way}), [2])
        for way in ("none", recompute)
    )
    assert less_kept < kept / 3
    assert less_peak < peak


def test_recomputing_is_seen_with_replicas() -> None:
    """They are asked for the statistics of their rows, which a repetition does not ask for again."""
    replicas: dict[str, Any] = {**WIDE, "replicas": 2, "data": {**WIDE["data"], "drop_last": True}}
    (peak, kept), (less_peak, less_kept) = (
        account(small_config(**replicas, memory={"recompute": way}), [2]) for way in ("none", "units")
    )
    assert less_kept < kept / 3
    assert less_peak < peak


def compare(case: str, workspaces: bool) -> None:
    config = small_config(**{**WIDE, **CASES[case]})
    stages = [1, 2, 3, 4] if config.in_one_process else [1, 2] if config.processes else [2]
    (peak, _), seen = account(config, stages, workspaces), measured_peak(config, stages, workspaces)
    assert abs(peak - seen) <= SHARE * seen, f"{peak:,} bytes said, {seen:,} handed out"


def account(config: Config, stages: list[int], workspaces: bool = True, cuda: bool = False) -> tuple[int, int]:
    """The peak, and what the first stage keeps. In a child: fake tensors start threads of autograd, after which no
    process that is forked from this one could run a backward pass."""
    outcome = run_in_child(partial(peak_and_kept, config, stages, workspaces, cuda), LIMIT)
    assert outcome.result is not None, outcome
    peak, kept = map(int, outcome.result or ())
    return peak, kept


def peak_and_kept(config: Config, stages: list[int], workspaces: bool, cuda: bool) -> list[str]:
    process = process_memory(config, stages, workspaces, cuda=cuda)
    return [str(process.peak), str(process.stages[0].kept)]
