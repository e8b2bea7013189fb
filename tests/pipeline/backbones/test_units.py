"""A block is a chain of units, which compute what it does; and what of a network cannot be computed again is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.backbones import TracedBlock, build_block
from pipeline.errors import ConfigError
from tests.pipeline.small import small_config

HERE = "tests.pipeline.backbones.test_units"
VIT = {"backbone": "vit_b_16", "patch_size": 8, "hidden_dim": 24, "num_layers": 3, "num_heads": 2, "cuts": []}


class Shortcut(nn.Module):
    """A value that bypasses a part, parameters on the way, and a constant that two units read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(a, 4, 3, padding=1) for a in (3, 4, 4))
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.last = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale.exp()
        x = self.first(x)
        x = x + self.second(x).relu() * scale
        x = self.third(x).relu_()
        return self.last(x * scale)


def shortcut() -> nn.Module:
    return Shortcut()


def spectral() -> nn.Module:
    """Its weight is read twice in one pass: as it is, and for its norm."""
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), spectral_norm(nn.Conv2d(4, 4, 1)))


def plain() -> nn.Module:
    """One operation after the other, some of them in place."""
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3, padding=1)]
    for _ in range(5):
        layers += [nn.BatchNorm2d(4), nn.Hardswish(inplace=True), nn.Conv2d(4, 4, 3, padding=1)]
    return nn.Sequential(*layers)


def traced(name: str, output: str, **model: Any) -> dict[str, Any]:
    return {"model": {"backbone": f"{HERE}:{name}", "output": output, "cuts": [], **model}}


NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "resnet": ({"model": {"backbone": "resnet18", "width": 8, "stem": "imagenet", "cuts": []}}, 9),
    "transformer": ({"model": VIT}, 5),
    "values that bypass": (traced("shortcut", "last"), 2),
    "one after the other": (traced("plain", "15"), 3),
    "torchvision": (
        {"model": {"backbone": "torchvision.models:resnet18", "output": "layer4", "cuts": []}}, 5
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sections", "count"), NETWORKS.values(), ids=list(NETWORKS))
def test_the_units_one_after_the_other_are_the_block(sections: dict[str, Any], count: int) -> None:
    block = build_block(small_config(**sections, memory={"recompute": "units"}), 1)
    x = torch.randn(2, 3, 16, 16)
    expected = block(x)
    before = x._version
    for call in block.unit_calls():
        version = x._version
        output = call.function(x)
        assert x._version == version, "a unit's input must be there a second time"
        x = output
    assert before == 0
    assert torch.equal(x, expected)
    assert len(block.unit_calls()) == count


def test_a_unit_lists_the_modules_whose_buffers_it_moves() -> None:
    for sections, _ in NETWORKS.values():
        block = build_block(small_config(**sections, memory={"recompute": "units"}), 1)
        listed = {id(b) for call in block.unit_calls() for module in call.modules for b in module.buffers()}
        assert listed >= {id(b) for name, b in block.named_buffers() if "running" in name}


def test_one_that_is_not_divided_runs_as_a_whole() -> None:
    block = build_block(small_config(**traced("plain", "15")), 1)
    assert isinstance(block, TracedBlock)
    assert torch.equal(block(torch.ones(2, 3, 8, 8)), block(torch.ones(2, 3, 8, 8)))


def test_a_weight_that_is_used_twice_in_one_pass_is_named() -> None:
    sections = traced("spectral", "2")
    small_config(**sections, memory={"recompute": "units"})
    with pytest.raises(
        ConfigError, match=r"^memory\.recompute: got 'views', and block 1 uses its weight '2\.par.*units"
    ):
        small_config(**sections, memory={"recompute": "views"})
