"""The cut Vision Transformer is torchvision's, up to and including the layer norm that ends its encoder."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models import VisionTransformer

from pipeline.backbones import build_block
from pipeline.config import Config
from pipeline.config.model import ViTConfig, ViTName
from pipeline.config.network_sizes import VIT_SIZES, vit_sizes
from pipeline.errors import ConfigError
from pipeline.shapes import block_output, boundary_shapes, channels_of, check_model
from tests.pipeline.backbones.blocks import blocks_of, images, merged

SIZES = {"patch_size": 8, "hidden_dim": 24, "num_layers": 3, "num_heads": 4, "mlp_dim": 40}
LAYER = "encoder.layers.encoder_layer_"
EVERY_UNIT = ["conv_proj", f"{LAYER}0", f"{LAYER}1"]


def config_of(image_size: int = 32, **model: Any) -> Config:
    values = {
        "seed": 2,
        "data": {"image_size": image_size, "batch_size": 3},
        "model": {"backbone": "vit_b_16", **SIZES, **model},
    }
    return Config.model_validate_json(json.dumps(values))


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("cuts", [[], [f"{LAYER}1"], EVERY_UNIT], ids=["whole", "halves", "every unit"])
def test_the_blocks_together_are_torchvisions_network(cuts: list[str], mode: bool) -> None:
    blocks = blocks_of(config_of(cuts=cuts))
    reference = VisionTransformer(image_size=32, **SIZES)
    result = reference.load_state_dict(merged(blocks), strict=False)
    assert not result.unexpected_keys
    assert result.missing_keys == ["heads.head.weight", "heads.head.bias"]
    encoded: list[Tensor] = []
    reference.encoder.register_forward_hook(lambda _module, _inputs, output: encoded.append(output))
    reference.train(mode)(images())
    ours = images()
    for block in blocks:
        ours = block.train(mode)(ours)
    assert torch.equal(ours, encoded[0])


@pytest.mark.parametrize("name", sorted(VIT_SIZES))
def test_a_size_that_is_not_given_is_that_of_the_named_network(name: str) -> None:
    image_size = 224
    values = {"model": {"backbone": name, "cuts": []}, "data": {"image_size": image_size}}
    config = Config.model_validate_json(json.dumps(values))
    check_model(config)
    with torch.device("meta"):
        reference = torchvision.models.get_model(name, weights=None)
        ours = build_block(config, 1).state_dict()
    shapes = {key: tensor.shape for key, tensor in reference.state_dict().items() if not key.startswith("heads.")}
    assert {key: tensor.shape for key, tensor in ours.items()} == shapes
    heads = [layer.self_attention.num_heads for layer in reference.encoder.layers]
    assert isinstance(config.model, ViTConfig)
    assert set(heads) == {vit_sizes(config.model).num_heads}
    assert block_output(config, 1) == (reference.seq_length, reference.hidden_dim)


def test_every_transformer_that_the_configuration_names_has_its_sizes() -> None:
    assert set(ViTName.__args__) == set(VIT_SIZES)


def test_initialisation_has_torchvisions_spread() -> None:
    sizes = {**SIZES, "hidden_dim": 256, "mlp_dim": 256}
    reference = VisionTransformer(image_size=32, **sizes).state_dict()
    for name, tensor in build_block(config_of(**sizes), 1).state_dict().items():
        expected = reference[name]
        if "mlp" in name and name.endswith("bias"):  # normal, with a standard deviation of 1e-6
            assert 0 < tensor.abs().max() < 1e-5, name
        elif tensor.numel() > 1000 and expected.std() > 0:
            assert tensor.std().item() == pytest.approx(expected.std().item(), rel=0.05), name
            assert tensor.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.4), name
        else:
            assert torch.equal(tensor, expected), name


def test_the_cut_does_not_change_the_weights() -> None:
    whole, parts = (merged(blocks_of(config_of(cuts=cuts))) for cuts in ([], EVERY_UNIT))
    assert set(whole) == set(parts)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    layers = [whole[f"{LAYER}{index}.mlp.0.weight"] for index in range(3)]
    assert not torch.equal(layers[0], layers[1])


def test_a_block_holds_its_units_alone() -> None:
    first, _, _, last = blocks_of(config_of(cuts=EVERY_UNIT))
    assert set(first.state_dict()) == {"class_token", "conv_proj.weight", "conv_proj.bias", "encoder.pos_embedding"}
    roots = {name.partition("2.")[0] if LAYER in name else name for name in last.state_dict()}
    assert roots == {LAYER, "encoder.ln.weight", "encoder.ln.bias"}


def test_every_parameter_learns_in_its_block() -> None:
    x = images()
    for block in blocks_of(config_of(cuts=EVERY_UNIT)):
        x = block(x.detach())
        (x**2).mean().backward()  # type: ignore[no-untyped-call]
        flat = [name for name, p in block.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not flat


@pytest.mark.parametrize(("size", "patch"), [(32, 8), (8, 8), (30, 5)])
def test_shapes_by_arithmetic_are_the_real_shapes(size: int, patch: int) -> None:
    config = config_of(size, patch_size=patch, cuts=EVERY_UNIT)
    check_model(config)
    shapes = boundary_shapes(config)
    assert shapes[0] == (2, 3, size, size, 3)
    x = torch.zeros(3, 3, size, size)
    for index, (block, shape) in enumerate(zip(blocks_of(config), shapes[1:], strict=True), 1):
        x = block(x)
        assert (2, *x.shape) == shape
        assert channels_of(block_output(config, index)) == x.shape[2]


@pytest.mark.parametrize(
    ("image_size", "model", "path", "expected"),
    [
        (30, {}, "data.image_size", "not a whole number of patches of 8 pixels. Give 24 or 32, or another"),
        (20, {"patch_size": 32}, "data.image_size", "Give 32, or another model.patch_size"),
        (
            32,
            {"num_heads": 5},
            "model.num_heads",
            "a multiple of 5, or model.num_heads out of 1, 2,",
        ),
        (32, {"num_heads": None}, "model.hidden_dim", "12 attention heads cannot share hidden_dim=20 evenly"),
        (32, {"num_heads": 3, "hidden_dim": 10**15}, "model.num_heads", "out of 1, 2, 4, 5, 8, 10, 16, 20, 25, 32"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(image_size: int, model: dict[str, Any], path: str, expected: str) -> None:
    hidden = {"hidden_dim": 20} if model.get("num_heads", 1) is None else {}
    with pytest.raises(ConfigError, match=re.escape(expected)) as refused:
        check_model(config_of(image_size, **model, **hidden))
    assert refused.value.path == path
