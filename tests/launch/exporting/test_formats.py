"""Each library loads what was exported for it, by the lines of the model card, and computes the same features."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.exporting.formats import TOLERANCE, export_folder, format_of
from launch.exporting.network import read_network
from pipeline.backbones.weight_names import Family, recognise
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.serial import build_stages
from pipeline.stage.state import Facts
from pipeline.validation.loading import dump_config
from tests.pipeline.small import small_config, views
from workers.run.files import RunDir
from workers.snapshots.weights import save_stage
from workers.weights.fitting import joined
from workers.weights.sources import Source
from workers.weights.tensors import opened_weights

RESNET = {"backbone": "resnet18", "stem": "imagenet"}
VIT = {
    "backbone": "vit_b_16", "patch_size": 8, "hidden_dim": 16, "num_layers": 3, "num_heads": 2, "mlp_dim": 32,
    "cuts": ["encoder.layers.encoder_layer_1"],
}  # fmt: skip


def trained(folder: Path, model: dict[str, Any]) -> tuple[str, Config]:
    """A run whose weights and statistics are not those that they are drawn as."""
    config = small_config(model=model, data={"image_size": 32})
    run = RunDir(folder)
    run.config.write_text(dump_config(config))
    stages = build_stages(config, 4)
    activations = views(0, size=32)
    for stage in stages:
        activations = stage(activations, 0, 0.0)
        save_stage(run, stage)
    return str(folder), config


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(tmp_path_factory.mktemp("resnet"), RESNET)[0]


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(tmp_path_factory.mktemp("vit"), VIT)[0]


def by_the_card(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """The features, by the lines of Python in the card."""
    lines = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert lines is not None
    names: dict[str, Any] = {"folder": str(folder), "images": images}
    with torch.no_grad():
        exec(lines[1], names)
    features: torch.Tensor = names["features"]
    return features


@pytest.mark.long
@pytest.mark.parametrize("form", ["torchvision", "timm", "hf", "torch-export"])
@pytest.mark.parametrize(("family", "block"), [("resnet", 2), ("resnet", 4), ("vit", 1), ("vit", 2)])
def test_the_library_computes_the_same(
    form: str, family: str, block: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    network = read_network(request.getfixturevalue(family), block, trusted=True)
    folder, _ = export_folder(network, form, tmp_path / "out")
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        own = network.module(images)
    features = by_the_card(folder, images)
    assert features.shape == own.shape
    assert ((features - own).abs().max() / own.abs().max()).item() <= TOLERANCE
    card = (folder / "README.md").read_text()
    assert "`[B, 3, 32, 32]`" in card
    assert "less the mean `[0.485, 0.456, 0.406]`" in card


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_a_run_may_begin_with_what_transformers_was_given(
    family: Family, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    network = read_network(request.getfixturevalue(family), None, trusted=True)
    folder, _ = export_folder(network, "hf", tmp_path / "out")
    with opened_weights(Source.of(str(folder))) as weights:
        found = recognise(family, weights.facts)
        assert not found.unexpected
        assert set(found.names) >= set(network.tensors())
        for name, tensor in network.tensors().items():
            assert torch.equal(joined(weights, found.names[name], Facts.of(tensor)), tensor)


def test_transformers_prepares_images_as_the_card_says(resnet: str, tmp_path: Path) -> None:
    import numpy as np
    from transformers import AutoImageProcessor

    folder, _ = export_folder(read_network(resnet, None, trusted=True), "hf", tmp_path / "out")
    pixels = np.full((40, 60, 3), 255, np.uint8)
    shown = AutoImageProcessor.from_pretrained(folder, local_files_only=True)(pixels, return_tensors="pt")[
        "pixel_values"
    ]
    assert shown.shape == (1, 3, 32, 32)
    expected = torch.tensor(
        [(1 - mean) / std for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    )
    torch.testing.assert_close(shown[0].mean((1, 2)), expected, rtol=1e-3, atol=0)


def test_a_network_that_a_library_has_not_is_refused_with_what_would_do(tmp_path: Path) -> None:
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    name, _ = trained(narrow, {"backbone": "resnet18", "width": 8, "cuts": ["layer1.0", "layer3"]})
    for form, problem in (
        ("torchvision", "torchvision has no such network: resnet18 with model.width=8. --to torch-export takes any"),
        ("timm", "timm has no such network: resnet18 with model.width=8"),
    ):
        with pytest.raises(UserError, match=problem):
            export_folder(read_network(name, 3, trusted=True), form, tmp_path / form)
        assert not (tmp_path / form).exists()
    for block in (1, 3):  # transformers has them of any width, and of any depth
        export_folder(read_network(name, block, trusted=True), "hf", tmp_path / f"hf{block}")


def test_what_is_missing_is_named(resnet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"--to: unknown format 'onnx'. Allowed: torchvision, timm, hf, torch-export"):
        format_of("onnx")
    with pytest.raises(UserError, match=r"--block: there is no block 5. '.*' has blocks 1 to 4"):
        read_network(resnet, 5, trusted=True)
    network = read_network(resnet, None, trusted=True)
    with pytest.raises(UserError, match=f"'{tmp_path}' already exists. Give another folder, or delete it"):
        export_folder(network, "torch-export", tmp_path)
    importing = builtins.__import__
    import importlib

    def missing(name: str, package: str | None = None) -> Any:
        if name == "timm":
            raise ImportError("No module named 'timm'")
        return real(name, package)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"--to timm needs the package timm.*pip install 'onward\[timm\]'"):
        format_of("timm")
    assert importing is builtins.__import__
