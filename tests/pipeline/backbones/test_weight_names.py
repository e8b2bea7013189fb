"""The names of other libraries: every rule reads back what it wrote, and a file is recognised by most of its names."""

from __future__ import annotations

import pytest
import torch
import torchvision

from pipeline.backbones import build_block
from pipeline.backbones.weight_names import FORMATS, Family, recognise, renamed_tensors, their_names
from tests.pipeline.small import small_config

NETWORKS = {
    "resnet18": {"backbone": "resnet18", "width": 8, "cuts": ["stem", "layer3.0"]},
    "resnet50": {"backbone": "resnet50", "width": 8, "cuts": []},
    "vit": {"backbone": "vit_b_16", "patch_size": 8, "hidden_dim": 16, "num_layers": 11, "num_heads": 2, "mlp_dim": 32},
}
HEADS = [f"stages.{k}.head.{part}" for k in (1, 2, 12) for part in ("expansion.1.running_var", "projector.6.weight")]


def backbone(name: str) -> dict[str, torch.Tensor]:
    config = small_config(model=NETWORKS[name])
    with torch.device("meta"):
        blocks = [build_block(config, index) for index in range(1, config.num_stages + 1)]
    return {name: tensor for block in blocks for name, tensor in block.state_dict().items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_format_is_a_bijection(name: str) -> None:
    family: Family = "vit" if name == "vit" else "resnet"
    tensors = backbone(name)
    for form in FORMATS[family]:
        given = [*tensors, *(HEADS if form.startswith("released") else [])]
        theirs = [part for ours in given for part in their_names(family, form, ours)]
        assert len(set(theirs)) == len(theirs), form
        found = recognise(family, [f"module.{part}" for part in theirs])
        assert set(found.names) == set(given), form
        assert found.prefix == "module.", form
        assert not found.unexpected, form
        assert not found.left_out, form
        for ours, parts in found.names.items():
            assert parts == tuple(f"module.{part}" for part in their_names(family, form, ours))


def test_what_is_split_is_split_in_the_order_in_which_it_is_joined() -> None:
    weight = torch.arange(18.0).reshape(6, 3)
    name = "encoder.layers.encoder_layer_10.self_attention.in_proj_weight"
    parts = renamed_tensors("vit", "hf", {name: weight})
    assert list(parts) == [f"layers.10.attention.{part}_proj.weight" for part in "qkv"]
    assert torch.equal(torch.cat(list(parts.values())), weight)
    assert recognise("vit", [*parts, "embeddings.cls_token"]).names[name] == tuple(parts)


def test_our_names_are_torchvisions_but_for_the_classifier() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.resnet50().state_dict()
        transformer = torchvision.models.vit_b_16().state_dict()
    for family, names in (("resnet", theirs), ("vit", transformer)):
        found = recognise(family, list(names))  # type: ignore[arg-type]
        assert found.format == "torchvision"
        assert not found.unexpected
        assert {name.split(".")[0] for name in found.left_out} == ({"fc"} if family == "resnet" else {"heads"})
        assert len(found.names) + len(found.left_out) == len(names)


def test_timm_has_these_names() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", depth=2).state_dict()
        wide = timm.create_model("wide_resnet50_2").state_dict()
    for family, names, form in (("vit", vit, "timm"), ("resnet", wide, "torchvision")):
        found = recognise(family, list(names))  # type: ignore[arg-type]
        assert (found.format, found.unexpected) == (form, ())


def test_a_classifier_may_lie_outside_of_the_prefix() -> None:
    layer = "vit.encoder.layer.0"
    parts = [f"{layer}.attention.attention.{part}.bias" for part in ("query", "key", "value")]
    found = recognise("vit", ["vit.embeddings.cls_token", *parts, "classifier.weight", "vit.pooler.dense.bias", "odd"])
    assert (found.format, found.prefix) == ("hf4", "vit.")
    assert found.left_out == ("classifier.weight", "vit.pooler.dense.bias")
    assert found.unexpected == ("odd",)


def test_a_part_of_what_makes_one_tensor_is_unexpected() -> None:
    found = recognise("vit", ["embeddings.cls_token", "layers.0.attention.q_proj.weight"])
    assert found.names == {"class_token": ("embeddings.cls_token",)}
    assert found.unexpected == ("layers.0.attention.q_proj.weight",)
