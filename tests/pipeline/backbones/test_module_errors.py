"""What can be wrong with a user's module and its cuts, each said in words at the key that has to change."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.shapes import boundary_shapes, check_model

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).resolve().parents[3]
RESNET, DENSENET, INCEPTION = (f"torchvision.models:{name}" for name in ("resnet18", "densenet121", "inception_v3"))


@pytest.fixture(autouse=True)
def _folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(Path(__file__).with_name("networks_with_errors.py"), tmp_path)
    (tmp_path / "broken_module.py").write_text("import no_such_package_of_mine\n")
    (tmp_path / "ill_module.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)


def config_of(size: int = 32, **model: Any) -> Config:
    data = {"image_size": size, "batch_size": 2}
    return Config.model_validate_json(json.dumps({"model": model, "data": data}))


def full(backbone: str) -> str:
    return backbone if ":" in backbone else f"networks_with_errors:{backbone}"


def refusal(size: int = 32, **model: Any) -> ConfigError:
    """The error of `check_model`, which is that of everything else that reads the network."""
    config = config_of(size, **{**model, "backbone": full(model["backbone"])})
    with pytest.raises(ConfigError) as refused:
        check_model(config)
    with pytest.raises(ConfigError, match=re.escape(str(refused.value))):
        boundary_shapes(config)
    assert "\n" not in str(refused.value)
    return refused.value


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("no_such_package.nets:f", "there is no module 'no_such_package' on Python's path or in '"),
        ("networks_with_errors.nets:f", "there is no module 'networks_with_errors.nets' on Python's path"),
        (
            "broken_module:f",
            "importing 'broken_module' failed (ModuleNotFoundError: No module named 'no_such_pack",
        ),
        ("ill_module:f", "importing 'ill_module' failed (SyntaxError: "),
        (
            "networks_with_errors:plan",
            "has no function 'plan'. Did you mean 'plain' or 'lazy'? Write PACKAGE.MOD",
        ),
        ("torchvision.models:convnext_tny", "Did you mean 'convnext_tiny' or "),
        ("networks_with_errors:NUMBER", "is of type int, not a function. Name something that can be called"),
        (
            "networks_with_errors:raises",
            "failed (RuntimeError: no such). Correct it, or give what it needs in model.",
        ),
        ("networks_with_errors:leaves", "failed (SystemExit: 3)"),
        ("networks_with_errors:nothing", "returned an object of type NoneType, not a torch.nn.Module. Name a function"),
        ("networks_with_errors:lazy", "'1.weight' of 'networks_with_errors:lazy' has no size before the first batch"),
    ],
)
def test_a_function_that_gives_no_network(backbone: str, expected: str) -> None:
    error = refusal(backbone=backbone, output="0")
    assert error.path == "model.backbone"
    assert expected in str(error)


def test_options_that_the_function_does_not_take() -> None:
    error = refusal(backbone="plain", options={"depth": 4}, output="0")
    assert error.path == "model.options"
    assert "unexpected keyword argument 'depth'" in str(error)
    assert "Its arguments are (width=4)" in str(error)


@pytest.mark.parametrize(
    ("backbone", "output", "cuts", "path", "expected"),
    [
        ("plain", "3", [], "model.output", "'3' is not a module of networks_with_errors:plain. The modules at its top"),
        ("plain", "", [], "model.output", "'' is not a module"),
        (RESNET, "layer4", ["layr1"], "model.cuts", "Did you mean 'layer1' or "),
        (
            RESNET,
            "fetures",
            [],
            "model.output",
            "The modules at its top are: conv1, bn1, relu, maxpool, layer1",
        ),
        (
            "Various",
            "out",
            ["layers"],
            "model.cuts",
            "'layers' is never called when the network runs. Did you mean",
        ),
        ("Various", "silent", [], "model.output", "'silent' is never called when the network runs. "),
        ("Various", "gate", ["pair"], "model.cuts", "'pair' gives a tuple, not one tensor"),
        ("Various", "out", ["pair.inner", "pair"], "model.cuts", "'pair' returns a tuple, not one tensor"),
        (RESNET, "layer4", ["layer1.0.relu"], "model.cuts", "'layer1.0.relu' is called 2 times in one pass"),
        (
            RESNET,
            "fc",
            [],
            "model.output",
            "'fc' gives float32 of shape [2, 1000] for 2 images. Name a module that",
        ),
        ("integers", "1", [], "model.output", "'1' gives int64 of shape [2, 4, 30, 30] for 2 images"),
        ("halving", "2", ["1"], "model.cuts", "'1' gives a batch of 8 for 2 images"),
        ("Early", "first", ["first.unused"], "model.output", "'first' computes nothing from the image"),
        ("Early", "a", ["first", "first.unused"], "model.cuts", "nothing between the image and 'first'"),
    ],
)
def test_a_name_that_is_no_point_to_cut_at(
    backbone: str, output: str, cuts: list[str], path: str, expected: str
) -> None:
    error = refusal(backbone=backbone, output=output, cuts=cuts)
    assert error.path == path
    assert expected in str(error)


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [
        (["layer2", "layer1"], "got ['layer2', 'layer1'], which is not in network order. Give ['layer1', 'layer2']"),
        (["layer1", "layer1"], "nothing between 'layer1' and 'layer1', so that block would be empty"),
        (["layer1.1", "layer1"], "nothing between 'layer1.1' and 'layer1'"),
        (["layer3"], "nothing between 'layer3' and 'layer3'"),
        (["layer4"], "'layer4' runs after model.output='layer3', which ends the network. Remove it, or name a later o"),
    ],
)
def test_cuts_that_leave_a_block_empty_or_stand_in_another_order(cuts: list[str], expected: str) -> None:
    error = refusal(backbone=RESNET, output="layer3", cuts=cuts)
    assert error.path == "model.cuts"
    assert expected in str(error)


@pytest.mark.parametrize(
    ("backbone", "output", "cut", "crosses", "before", "after"),
    [
        (RESNET, "layer4", "layer2.0.conv2", "the output of 'layer1'", "layer1", "layer2.0"),
        (RESNET, "layer4", "layer1.0.bn2", "the output of 'maxpool'", "maxpool", "layer1.0"),
        (RESNET, "layer4", "layer2.0.downsample", "the output of 'layer2.0.bn2'", "layer1", "layer2.0"),
        (
            DENSENET,
            "features",
            "features.denseblock2.denselayer2",
            "the output of 'features.denseblock2.denselayer1' (and 1 more)",
            "features.transition1",
            "features.denseblock2",
        ),
        ("Various", "out", "layers.1", "the result of getitem in the forward of the network", "same", None),
    ],
)
def test_a_cut_that_another_value_bypasses(
    backbone: str, output: str, cut: str, crosses: str, before: str, after: str | None
) -> None:
    error = refusal(backbone=backbone, output=output, cuts=[cut])
    assert error.path == "model.cuts"
    assert error.problem == f"cannot cut at '{cut}': what follows it also reads {crosses}"
    points = [f"'{before}' before it", *([f"'{after}' after it"] if after else [])]
    assert error.remedy == f"The nearest points where one value passes: {', '.join(points)}"
    check_model(config_of(backbone=full(backbone), output=output, cuts=[before, after] if after else [before]))


def test_a_cut_beside_the_way_to_the_output() -> None:
    error = refusal(backbone=INCEPTION, options={"init_weights": False}, output="Mixed_7a", cuts=["AuxLogits"])
    assert "'AuxLogits' is not on the way from the image to model.output='Mixed_7a'" in str(error)
    assert "'Mixed_6e' before it" in str(error)


@pytest.mark.parametrize(
    ("backbone", "output", "cut", "expected"),
    [
        ("shared", "2", "0", "'2.weight' is used by block 2 and by block 1 (there as '0.weight'), and blocks cannot"),
        ("Various", "gate", "layers.1", "'weight' is used by block 2 and by block 1, and blocks cannot share weights"),
    ],
)
def test_weights_on_both_sides_of_a_cut(backbone: str, output: str, cut: str, expected: str) -> None:
    error = refusal(backbone=backbone, output=output, cuts=[cut])
    assert error.path == "model.cuts"
    assert expected in str(error)


def test_layers_without_state_may_be_called_by_several_blocks() -> None:
    check_model(config_of(backbone=full("Rectified"), output="last", cuts=["first", "second"]))


def test_a_forward_that_decides_by_values_is_refused_only_where_it_is_cut() -> None:
    check_model(config_of(backbone=full("Various"), output="gate", cuts=["layers.0"]))
    error = refusal(backbone="Various", output="gate", cuts=["gate.inner"])
    assert error.path == "model.backbone"
    assert "the forward of 'gate' cannot be traced (TraceError: " in str(error)
    assert "Cut outside of that module, or write it without such branches" in error.remedy


def test_random_numbers_of_a_forward_are_refused_only_where_they_would_become_constants() -> None:
    check_model(config_of(backbone=full("NoisyLayer"), output="a", cuts=["inner"]))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    error = refusal(backbone="NoisyLayer", output="a", cuts=["inner.a"])
    assert torch.equal(torch.get_rng_state(), before)
    assert error.path == "model.backbone"
    assert "draws random numbers, which tracing would make constants" in str(error)


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("Two", "the forward of Two takes x, mask. It must take one tensor, the images; other arguments need defaults"),
        ("None_", "the forward of None_ takes nothing. It must take one tensor"),
        ("Unwritten", "the forward of the network cannot be traced (NotImplementedError: "),
    ],
)
def test_a_forward_that_does_not_take_one_tensor(backbone: str, expected: str) -> None:
    error = refusal(backbone=backbone, output="a")
    assert error.path == "model.backbone"
    assert expected in str(error)


def test_images_too_small_for_the_network() -> None:
    error = refusal(backbone=DENSENET, output="features", size=16)
    assert error.path == "data.image_size"
    assert "fails on images of 16x16 pixels (RuntimeError: " in str(error)
    assert error.remedy == "Give 32, for example, which it takes"
    check_model(config_of(backbone=DENSENET, output="features", size=32))


def test_a_network_that_takes_images_of_no_size() -> None:
    error = refusal(backbone="Gray", output="a")
    assert error.path == "model.backbone"
    assert "fails on images of 32x32 pixels (RuntimeError: Given groups=1" in str(error)


@pytest.mark.processes
@pytest.mark.parametrize("backbone", ["resnet18", "resnext50_32x4d", "vit_b_16"])
def test_torch_is_loaded_for_a_users_module_only(backbone: str) -> None:
    script = f"""
import json, sys
from pipeline.config import Config
from pipeline.shapes import block_output, boundary_shapes, check_model
config = Config.model_validate_json(json.dumps({{"model": {{"backbone": "{backbone}"}}}}))
check_model(config), boundary_shapes(config), block_output(config, 1)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
