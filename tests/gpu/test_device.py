"""The product on a device: on the CPU in every suite, on a GPU where there is one (`make gpu`, or `pytest -m gpu`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pipeline.config import Config
from pipeline.serial import build_stages, serial_step
from pipeline.stage.state import stage_tensors
from tests.gpu.networks import parsed, sizes
from tests.gpu.operations import PARTS, Seen, two_steps
from tests.gpu.plain_loop import PlainLoop
from tests.gpu.setting import Setting
from tests.launch.plan.measured import random_batch
from tests.pipeline.small import small_config
from workers.run.compute import set_up_compute

pytestmark = pytest.mark.long

DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])]
SMALL = Setting("cpu", small=True)
CONSTANT = {"schedule": "constant", "warmup_epochs": 0}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """One that computes as in a run; what a run sets for its whole process is put back."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark, torch.get_num_threads()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    set_up_compute(small_config())
    yield torch.device(request.param)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark, threads = before
    torch.utils.deterministic.fill_uninitialized_memory = fill
    torch.set_num_threads(threads)


def trained(config: Config, device: torch.device) -> list[dict[str, torch.Tensor]]:
    """The state of every stage after three steps."""
    stages = build_stages(config, 1, device)
    batch, levels = random_batch(config, 1, 0).to(device), [0.25] * len(stages)
    for step in range(3):
        list(serial_step(stages, batch, step, levels))
    return [{name: tensor.cpu() for name, tensor in stage_tensors(stage).items()} for stage in stages]


@pytest.mark.parametrize("network", ["resnet50", "vit_s"])
def test_three_steps_are_the_same_twice(network: str, device: torch.device) -> None:
    first, second = (trained(parsed(network, SMALL), device) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


def in_plain_order(module: nn.Module) -> list[nn.Parameter]:
    """As the plain loop has them: token and positions first, then the convolution of the patches, then all others."""
    first = ("class_token", "encoder.pos_embedding", "conv_proj")

    def place(name: str) -> int:
        return next((number for number, start in enumerate(first) if name.startswith(start)), len(first))

    named = sorted(module.named_parameters(), key=lambda pair: place(pair[0]))
    return [parameter for _, parameter in named]


@pytest.mark.parametrize("network", ["resnet50", "vit_s"])
def test_the_plain_loop_is_the_same_training(network: str, device: torch.device) -> None:
    """In float64: what pipelines are compared with does the same work, step after step."""
    config = parsed(network, SMALL, optimizer=CONSTANT, noise={"kind": "none"})
    stages = build_stages(config, 1, device, torch.float64)
    plain = PlainLoop(network, sizes(network, small=True), device, dtype=torch.float64, noise=0.0)
    for stage, block, head in zip(stages, plain.blocks, plain.heads, strict=True):
        for ours, theirs in ((stage.block, block), (stage.head, head)):
            assert ours is not None
            for one, other in zip(in_plain_order(ours), theirs.parameters(), strict=True):
                other.data.copy_(one.data)
    shape = (2, config.data.batch_size, 3, config.data.image_size, config.data.image_size)
    views = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    for step in range(3):
        wanted = [report.loss for report in serial_step(stages, views, step, [0.0] * 4)]
        assert_close([loss.item() for loss in plain.step(views)], wanted, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("part", PARTS)
def test_what_runs_on_the_device_is_seen_in_the_backward_too(part: str, device: torch.device) -> None:
    sections: dict[str, Any] = PARTS[part]
    with Seen(device) as seen:
        two_steps(small_config(**sections), device)
    named = " ".join(seen.counts)
    assert "convolution_backward" in named
    assert "batch_norm_backward" in named
    assert "convolution." in named
