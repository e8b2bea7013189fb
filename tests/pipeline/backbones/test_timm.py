"""Networks of timm by name: cut where timm says, with weights and values of timm's own network, or one clear error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from torch import Tensor

from pipeline.backbones.timm_points import evenly
from pipeline.config import Config
from pipeline.config.model import TimmConfig
from pipeline.errors import ConfigError
from pipeline.validation.loading import dump_config, parse_config
from tests.benchmarks.timm_families import NETWORKS, row_of
from tests.pipeline.backbones.blocks import blocks_of, merged
from tests.runs import report, train
from tests.sources import REPOSITORY

SIZE = 64


def config_of(name: str, size: int = SIZE, **model: Any) -> Config:
    return parse_config(
        {
            "seed": 4,
            "model": {"backbone": f"timm/{name}", **model},
            "head": {"kind": "gsp", "projector": [16]},
            "noise": {"kind": "none"},
            "data": {"image_size": size, "batch_size": 2},
        }
    )


def model_of(config: Config) -> TimmConfig:
    assert isinstance(config.model, TimmConfig)
    return config.model


FAMILIES = {
    "test_resnet": ("layer4", ("layer1", "layer2", "layer3"), {}),
    "test_vit": ("norm", ("blocks.1", "blocks.2", "blocks.4"), {"img_size": SIZE}),
    "test_efficientnet": ("bn2", ("blocks.1", "blocks.2", "blocks.3"), {}),
    "test_mambaout": ("stages", ("stages.0", "stages.1", "stages.2"), {}),
}
"""Output and cuts; the last keeps its channels last."""
NEST = {"name": "nest_tiny", "size": 224}
"""A network whose features are those of its last module, permuted."""


@pytest.mark.parametrize("name", FAMILIES)
def test_the_blocks_together_are_timms_network(name: str) -> None:
    output, cuts, options = FAMILIES[name]
    config = config_of(name, options=options)
    model = model_of(config)
    assert (model.output, model.cuts, model.num_blocks) == (output, cuts, 4)
    assert model.channels_last == (name == "test_mambaout")
    blocks = blocks_of(config)
    reference: Any = timm.create_model(name, pretrained=False, num_classes=0, **options)
    missing = reference.load_state_dict(merged(blocks), strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith(("head.", "fc_norm.")) for key in missing.missing_keys)
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for module in (reference, *blocks):
        module.eval()
    with torch.inference_mode():
        x = images
        for block in blocks:
            x = block(x)
            assert x.is_contiguous()
        expected = reference.forward_features(images)
    assert torch.equal(x, expected.permute(0, 3, 1, 2) if model.channels_last else expected)


def test_what_was_found_is_kept_by_the_run() -> None:
    config = config_of("test_resnet", num_blocks=3)
    assert model_of(config).cuts == ("layer1", "layer3")
    kept = yaml.safe_load(dump_config(config))["model"]
    found = {"num_blocks": 3, "cuts": ["layer1", "layer3"], "output": "layer4", "channels_last": False}
    assert kept == {"backbone": "timm/test_resnet", "options": {}, **found}
    assert parse_config(config.model_dump(mode="json"), build=False) == config


def test_cuts_and_an_output_that_are_given_stay() -> None:
    config = config_of("test_resnet", cuts=["layer2.0"], output="layer3")
    assert (model_of(config).cuts, model_of(config).output, config.num_stages) == (("layer2.0",), "layer3", 2)
    assert config_of("test_resnet", cuts=[]).num_stages == 1


def test_more_blocks_than_timm_names_take_other_modules() -> None:
    cuts = model_of(config_of("test_resnet", num_blocks=6)).cuts
    assert len(set(cuts)) == 5


@pytest.mark.parametrize(
    ("points", "blocks", "expected"),
    [("abcde", 2, "c"), ("abcde", 6, "abcde"), ("abcdefghijk", 4, "cfi"), ("abcd", 4, "bcd"), ("abc", 1, "")],
)
def test_points_are_spread_evenly(points: str, blocks: int, expected: str) -> None:
    assert evenly(points, blocks) == tuple(expected)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "resnet_18"}, r"^model\.backbone: timm .* has no network 'resnet_18'\. Did you mean 'resnet18'"),
        ({"name": "resnet18.a1_in1k"}, r"^model\.backbone: got 'timm/resnet18\.a1_in1k'\. It should be timm/NAME"),
        ({"name": "test_resnet", "options": {"pretrained": True}}, r"^model\.options\.pretrained: .*random weights"),
        ({"name": "test_resnet", "options": {"depth": 3}}, r"^model\.options: timm cannot build 'test_resnet' .*depth"),
        (
            {"name": "test_resnet", "num_blocks": 99},
            r"^model\.num_blocks: .* at most, after .*, and not into 99\. Give",
        ),
        (
            {"name": "tnt_s_patch16_224", "size": 224, "options": {"depth": 2}},
            r"^model\.num_blocks: .* cannot be cut: nowhere inside does one tensor pass",
        ),
        ({"name": "test_resnet", "output": "layer9"}, r"^model\.output: 'layer9' is not a module of .*Did you mean"),
        (
            {"name": "test_resnet", "output": "fc"},
            r"^model\.output: 'fc' of .* does not return one map, or tokens, once",
        ),
        (NEST, r"^model\.output: no module .* Give model\.output=levels, the last that"),
        (
            {"name": "twins_svt_small", "size": 224, "options": {"depths": [1, 1, 1, 1]}},
            r"^model\.backbone: the forward_features of the network cannot be traced \(TraceError: [^.]*\)\. Where .* "
            r"Choose another network, or write",
        ),
        ({"name": "test_resnet", "num_blocks": 2, "cuts": []}, r"^model\.num_blocks: got 2, and model\.cuts makes 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_one_error(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(**model)


def test_an_output_that_an_error_names_will_do() -> None:
    assert model_of(config_of(**NEST, output="levels")).cuts == ("patch_embed.proj", "levels.0", "levels.1")


def test_a_network_for_one_size_says_which_and_how_to_have_another() -> None:
    with pytest.raises(ConfigError, match=r"Give 224, which is its own size, or model\.options\.img_size=64$"):
        config_of("deit_tiny_patch16_224")


def test_without_timm_the_command_to_install_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"needs timm \(.*\)\. Install it: pip install \"onward\[timm\]\""):
        config_of("test_resnet")


def test_dropped_paths_are_drawn_from_keys() -> None:
    """Two builds of a network that drops paths compute the same step, whatever was drawn before."""
    from pipeline.stage.stage import Stage

    config = config_of("test_vit", options={"img_size": SIZE, "drop_path_rate": 0.5})
    tokens = torch.randn(16, 17, 64, generator=torch.Generator().manual_seed(0))
    outputs: list[Tensor] = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        stage = Stage(config, 2, 1)
        assert any(type(module).__name__ == "DropPath" for module in stage.modules())
        outputs.append(stage([tokens, tokens], 0, 0.0))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0][0], outputs[0][1]), "each view has a key of its own"


@pytest.mark.slow
@pytest.mark.processes
def test_a_pipeline_of_timms_blocks_equals_the_serial_run(tmp_path: Path) -> None:
    network = (
        "model={backbone: timm/test_vit, options: {img_size: 32, drop_path_rate: 0.2}, num_blocks: 3}",
        "data.image_size=32",
        "train.max_steps=3",
    )
    digests = []
    for runtime in ("serial", "pipelined"):
        folder = tmp_path / runtime
        folder.mkdir()
        result = train(folder, *network, f"runtime={runtime}")
        assert result.returncode == 0, result.stderr
        digests.append(report(folder)["final_digest"])
    assert digests[0] == digests[1]


@pytest.mark.long
def test_the_table_of_the_documents_is_that_of_the_networks_here() -> None:
    """A few of them; `tests/benchmarks/timm_families.py` prints all."""
    table = (REPOSITORY / "docs" / "reference" / "timm.md").read_text().splitlines()
    rows = [line.split("`")[1] for line in table[table.index("|---|---|---|---|") + 1 :]]
    assert rows == NETWORKS.split()
    for name in ("resnet18", "deit_tiny_patch16_224", "convnext_atto", "tnt_s_patch16_224"):
        assert str(row_of(name)) in table
