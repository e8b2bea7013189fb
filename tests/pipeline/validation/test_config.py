"""The configuration: its defaults, how it is merged, and that it survives being written and read."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config import Config
from pipeline.config.units import RESNET_UNITS, resnet_units, split_units
from pipeline.validation.loading import dump_config, load_config, parse_config


def load(tmp_path: Path, text: str, *overrides: str) -> Config:
    (tmp_path / "config.yaml").write_text(text)
    return load_config(tmp_path / "config.yaml", overrides)


def test_the_defaults_are_those_of_the_released_training_script() -> None:
    config = Config()
    assert (config.train.epochs, config.data.batch_size, config.data.image_size) == (300, 2048, 224)
    assert (config.model.backbone, config.model.zero_init_residual) == ("resnet50", True)
    assert (config.head.width, config.head.filter, config.head.projector) == (2048, 1, (8192, 8192, 8192))
    assert (config.objective.lambd, config.objective.scale) == (0.0051, 0.024)
    assert (config.noise.kind, config.noise.std) == ("all", 0.25)
    optimizer = config.optimizer
    assert (optimizer.lr, optimizer.scale_lr, optimizer.weight_decay, optimizer.eta) == (0.2, True, 1e-6, 0.001)
    assert (optimizer.momentum, optimizer.warmup_epochs, optimizer.final_ratio) == (0.9, 10, 0.001)


def test_without_a_key_everything_is_default(tmp_path: Path) -> None:
    assert load(tmp_path, "") == load(tmp_path, "# nothing\n") == load(tmp_path, "{}") == Config()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-6", 1e-6), ("1E-6", 1e-6), ("1.0e-6", 1e-6), ("2e+1", 20.0), ("1", 1.0), (".5", 0.5), ("1_0e1", 100.0)],
)
def test_numbers_as_people_write_them(text: str, value: float, tmp_path: Path) -> None:
    assert load(tmp_path, f"optimizer: {{lr: {text}}}").optimizer.lr == value
    assert load(tmp_path, "", f"optimizer.lr={text}").optimizer.lr == value


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("seed=7", lambda c: c.seed, 7),
        ("run_dir=a=b", lambda c: c.run_dir, "a=b"),
        ("run_dir='7'", lambda c: c.run_dir, "7"),
        ("run_dir=null", lambda c: c.run_dir, None),
        ("model.cuts=[]", lambda c: c.num_stages, 1),
        ("model.cuts=[layer1.0, layer2]", lambda c: c.model.cuts, ("layer1.0", "layer2")),
        ("data.augment.jitter.p=0", lambda c: c.data.augment.jitter.p, (0.0, 0.0)),
        ("data.augment={gray_p: 0.5}", lambda c: c.data.augment.gray_p, (0.5, 0.5)),
        (" seed =7", lambda c: c.seed, 7),
        ("stages.2.noise.std=0.5", lambda c: c.stage(2).noise.std, 0.5),
    ],
)
def test_overrides(override: str, read: Any, expected: object, tmp_path: Path) -> None:
    assert read(load(tmp_path, "seed: 1", override)) == expected


def test_an_override_of_a_stage_meets_the_stage_in_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, "stages: {2: {noise: {std: 0.5, kind: hw}}}", "stages.2.noise.std=1", "stages.1.device=cpu")
    assert (config.stage(2).noise.std, config.stage(2).noise.kind) == (1.0, "hw")
    assert set(config.stages) == {1, 2}


def test_an_override_fills_a_section_that_is_empty_in_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, "data:\nseed: 1", "data.batch_size=8").data.batch_size == 8


def test_what_a_stage_does_differently_is_laid_over_what_all_do(tmp_path: Path) -> None:
    text = """
    noise: {kind: hw, std: 0.1}
    optimizer: {lr: 0.5}
    device: cpu
    stages: {3: {device: "cuda:1", noise: {std: 0.7}, head: {projector: [4]}}}
    """
    config = load(tmp_path, text)
    second, third = config.stage(2), config.stage(3)
    assert (second.noise.kind, second.noise.std, second.device) == ("hw", 0.1, "cpu")
    assert (third.noise.kind, third.noise.std, third.device) == ("hw", 0.7, "cuda:1")
    assert (second.head, third.head.projector, third.head.width) == (config.head, (4,), config.head.width)
    assert second.optimizer == third.optimizer == config.optimizer
    assert third.units == tuple(f"layer3.{i}" for i in range(6))


def test_a_configuration_cannot_be_changed() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.optimizer.lr = 3.0


RESNET18 = ["stem", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0", "layer4.1"]


@pytest.mark.parametrize(
    ("cuts", "blocks"),
    [
        ([], [RESNET18]),
        (["layer3"], [RESNET18[:7], RESNET18[7:]]),
        (["stem", "layer4.0"], [RESNET18[:1], RESNET18[1:8], RESNET18[8:]]),
        (["layer1", "layer2.0", "layer2"], [RESNET18[:3], RESNET18[3:4], RESNET18[4:5], RESNET18[5:]]),
    ],
)
def test_cuts(cuts: list[str], blocks: list[list[str]]) -> None:
    config = parse_config({"model": {"backbone": "resnet18", "cuts": cuts}})
    assert config.model.blocks() == blocks
    assert config.num_stages == len(blocks)


@pytest.mark.parametrize("backbone", RESNET_UNITS)
def test_blocks_part_the_network_without_loss(backbone: str) -> None:
    units = resnet_units(backbone)
    blocks = split_units(units, units[:-1])
    assert blocks == [[unit] for unit in units]
    assert len(units) == 1 + sum(RESNET_UNITS[backbone])
    assert [unit for block in split_units(units, ["layer1", "layer2", "layer3"]) for unit in block] == units


@given(
    seed=st.integers(0, 2**31 - 1),
    lr=st.floats(min_value=1e-300, max_value=1e300),
    run_dir=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x00~"), max_size=20),
    cuts=st.sets(st.integers(0, 17), max_size=5),
    std=st.floats(0, 1e6),
)
@example(seed=0, lr=1.0, run_dir="0E0", cuts=set(), std=0.0)
@settings(max_examples=50)
def test_what_is_written_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lr: float, run_dir: str | None, cuts: set[int], std: float
) -> None:
    names = [resnet_units("resnet50")[:-1][i] for i in sorted(cuts) if i < 16]
    values = {
        "seed": seed,
        "run_dir": run_dir,
        "model": {"cuts": names},
        "optimizer": {"lr": lr},
        "stages": {1: {"noise": {"std": std}}},
    }
    config = parse_config(values)
    path = tmp_path_factory.mktemp("round") / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config
    assert math.isclose(config.stage(1).noise.std, std)


@pytest.mark.processes
def test_the_configuration_does_without_torch() -> None:
    script = "import sys, pipeline.validation.loading, pipeline.shapes; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout == "False\n"
