"""The cut network is torchvision's network: same names, same shapes, same function."""

from __future__ import annotations

import pytest
import torch
import torchvision

from pipeline.backbones import Block, merge_backbone
from pipeline.config import Model
from pipeline.config_loading import parse_config
from pipeline.shapes import boundary_shapes


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_the_blocks_together_are_torchvisions_network(name: str) -> None:
    model = Model(backbone=name)
    blocks = [Block(model, units, seed=0) for units in model.blocks()]
    reference = torchvision.models.get_model(name, weights=None)
    reference.fc = torch.nn.Identity()
    reference.load_state_dict(merge_backbone({i: b.state_dict() for i, b in enumerate(blocks, 1)}), strict=True)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = x
        for block in blocks:
            ours = block.eval()(ours)
        torch.testing.assert_close(ours.mean(dim=(2, 3)), reference.eval()(x))


def test_initialisation_has_torchvisions_spread() -> None:
    reference = torchvision.models.resnet50(weights=None, zero_init_residual=True).state_dict()
    model = Model(backbone="resnet50", cuts=())
    for name, tensor in Block(model, model.units(), seed=0).state_dict().items():
        assert tensor.shape == reference[name].shape, name
        if tensor.numel() > 10_000:
            assert tensor.std().item() == pytest.approx(reference[name].std().item(), rel=0.05), name
        elif "running" not in name and tensor.dim() == 1:
            assert torch.equal(tensor, reference[name]), name


def test_the_cut_does_not_change_the_weights() -> None:
    def weights(*cuts: str) -> dict[str, torch.Tensor]:
        model = Model(backbone="resnet18", width=8, cuts=cuts)
        return merge_backbone({i: Block(model, u, seed=3).state_dict() for i, u in enumerate(model.blocks())})

    whole, halves = weights(), weights("layer1.0", "layer3")
    assert list(whole) == list(halves)
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_building_a_block_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Block(Model(backbone="resnet18", width=8), ["stem"], seed=0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stem", ["imagenet", "cifar", "strided"])
@pytest.mark.parametrize(("backbone", "size"), [("resnet18", 28), ("resnet50", 33)])
def test_shapes_by_arithmetic_are_the_real_shapes(stem: str, backbone: str, size: int) -> None:
    config = parse_config(
        {
            "model": {"backbone": backbone, "stem": stem, "width": 8, "cuts": ["stem", "layer1", "layer3.0"]},
            "data": {"image_size": size, "batch_size": 2},
        }
    )
    shapes = boundary_shapes(config)
    x = torch.zeros(shapes[0][1:])
    for units, shape in zip(config.model.blocks(), shapes[1:], strict=True):
        x = Block(config.model, units, seed=0)(x)
        assert (2, *x.shape) == shape
