"""The cut network is torchvision's network: same names, same shapes, same function."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from pipeline.backbones import build_block, merge_backbone
from pipeline.config import Config
from pipeline.config.model import ResNetName
from pipeline.config.units import RESNET_UNITS
from pipeline.errors import ConfigError
from pipeline.shapes import block_output, boundary_shapes, channels_of, check_model

pytestmark = pytest.mark.long


def config_of(model: dict[str, Any], image_size: int = 64, batch_size: int = 2, **values: Any) -> Config:
    data = {"image_size": image_size, "batch_size": batch_size}
    return Config.model_validate_json(json.dumps({"model": model, "data": data, **values}))


def blocks_of(config: Config) -> list[nn.Module]:
    return [build_block(config, index) for index in range(1, config.num_stages + 1)]


def merged(blocks: list[nn.Module]) -> dict[str, torch.Tensor]:
    return merge_backbone({index: block.state_dict() for index, block in enumerate(blocks, 1)})


def reference_of(name: str) -> nn.Module:
    """torchvision's network, without the time that its initialisation takes."""
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None)
    assert isinstance(network, nn.Module)
    return network


LARGE = [name for name in sorted(RESNET_UNITS) if "101" in name or "152" in name]
"""What only their number of units tells from the others."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in sorted(RESNET_UNITS)]
)
def test_the_blocks_together_are_torchvisions_network(name: str) -> None:
    blocks = blocks_of(config_of({"backbone": name, "zero_init_residual": False}))
    reference = reference_of(name)
    reference.fc = nn.Identity()
    reference.load_state_dict(merged(blocks), strict=True, assign=True)
    x = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = x
        for block in blocks:
            ours = block.eval()(ours)
        theirs = reference.eval()(x)
    assert theirs.abs().max() > 0
    torch.testing.assert_close(ours.mean(dim=(2, 3)), theirs)


def test_every_resnet_that_the_configuration_names_has_its_units() -> None:
    assert set(ResNetName.__args__) == set(RESNET_UNITS)


@pytest.mark.parametrize(
    "name", ["resnet50", "resnext50_32x4d", pytest.param("wide_resnet50_2", marks=pytest.mark.slow)]
)
def test_initialisation_has_torchvisions_spread(name: str) -> None:
    reference = torchvision.models.get_model(name, weights=None, zero_init_residual=True).state_dict()
    for key, tensor in build_block(config_of({"backbone": name, "cuts": []}), 1).state_dict().items():
        assert tensor.shape == reference[key].shape, key
        if tensor.numel() > 10_000:
            assert tensor.std().item() == pytest.approx(reference[key].std().item(), rel=0.05), key
        elif "running" not in key and tensor.dim() == 1:
            assert torch.equal(tensor, reference[key]), key


@pytest.mark.parametrize(("name", "width"), [("resnet18", 8), ("wide_resnet50_2", 6), ("resnext50_32x4d", 16)])
def test_the_cut_does_not_change_the_weights(name: str, width: int) -> None:
    def network(cuts: list[str]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        blocks = blocks_of(config_of({"backbone": name, "width": width, "cuts": cuts}, seed=3))
        x = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
        for block in blocks:
            x = block(x)
        return merged(blocks), x.detach()

    whole, output = network([])
    every_unit = config_of({"backbone": name, "cuts": []}).model.units()[:-1]
    for cuts in (["layer1.0", "layer3"], every_unit):
        weights, same = network(cuts)
        assert list(weights) == list(whole)
        assert all(torch.equal(whole[key], weights[key]) for key in whole)
        assert torch.equal(output, same)


def test_another_seed_gives_other_weights() -> None:
    weights = [
        build_block(config_of({"backbone": "resnet18", "width": 8}, seed=seed), 2).state_dict()["layer2.0.conv1.weight"]
        for seed in (0, 1)
    ]
    assert not torch.equal(*weights)


def test_building_a_block_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_block(config_of({"backbone": "resnet18", "width": 8}), 1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stem", ["imagenet", "cifar", "strided"])
@pytest.mark.parametrize(
    ("backbone", "size", "width"),
    [("resnet18", 28, 8), ("resnet50", 33, 8), ("resnext101_32x8d", 8, 8), ("wide_resnet101_2", 17, 5)],
)
def test_shapes_by_arithmetic_are_the_real_shapes(stem: str, backbone: str, size: int, width: int) -> None:
    cuts = ["stem", "layer1", "layer3.0"]
    config = config_of({"backbone": backbone, "stem": stem, "width": width, "cuts": cuts}, image_size=size)
    check_model(config)
    shapes = boundary_shapes(config)
    assert shapes[0] == (2, 2, size, size, 3)
    x = torch.zeros(2, 3, size, size)
    for index, (block, shape) in enumerate(zip(blocks_of(config), shapes[1:], strict=True), 1):
        x = block(x)
        assert (2, *x.shape) == shape
        assert tuple(x.shape[1:]) == block_output(config, index)
        assert channels_of(block_output(config, index)) == x.shape[1]


def test_a_patch_travels_as_a_third_view() -> None:
    config = config_of({"backbone": "resnet18"}, objective={"kind": "simclr", "negatives": "single_patch"})
    assert {shape[:2] for shape in boundary_shapes(config)} == {(3, 2)}


@pytest.mark.parametrize(
    ("backbone", "width", "expected"),
    [
        ("resnext50_32x4d", 24, "32 groups of 1.5 channels. Give a multiple of 16"),
        ("resnext50_32x4d", 8, "32 groups of 0.5 channels. Give a multiple of 16"),
        ("resnext101_32x8d", 12, "32 groups of 1.5 channels. Give a multiple of 8"),
        ("resnext101_64x4d", 40, "64 groups of 2.5 channels. Give a multiple of 16"),
    ],
)
def test_groups_that_a_width_would_tear_apart_are_refused(backbone: str, width: int, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)) as refused:
        check_model(config_of({"backbone": backbone, "width": width}))
    assert refused.value.path == "model.width"


@pytest.mark.parametrize(
    ("backbone", "width"), [("resnet50", 5), ("wide_resnet50_2", 7), ("resnext50_32x4d", 48), ("resnext101_32x8d", 8)]
)
def test_every_other_width_is_a_network(backbone: str, width: int) -> None:
    config = config_of({"backbone": backbone, "width": width, "cuts": []}, image_size=8)
    check_model(config)
    assert build_block(config, 1)(torch.zeros(2, 3, 8, 8)).shape[1] == 32 * width
