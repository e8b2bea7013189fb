"""Every preset in `configs/` is accepted, and its header says how to run it, how long it takes and what to expect."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.config_loading import load_config

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


def header(path: Path) -> str:
    """The comment that opens the file, without its marks."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


def test_there_are_presets() -> None:
    assert {"quickstart.yaml", "paper_resnet50_imagenet.yaml"} <= {path.name for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_header_gives_command_time_and_number(path: Path) -> None:
    text = header(path)
    assert re.search(rf"^Command: onward train configs/{re.escape(path.name)}\b", text, re.M), text
    assert re.search(r"^Time: +(.*\d|not measured)", text, re.M), text
    assert re.search(r"^Expect: +(.*\d|not measured)", text, re.M), text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_preset_passes_every_check(
    path: Path, tmp_path: Path, onward: Callable[..., Any], make_image_folder: Callable[..., Path]
) -> None:
    config = load_config(path)
    overrides = []
    if config.data.name != "fashion_mnist_10k":  # the data is not here: a small stand-in, in batches that fit it
        make_image_folder(tmp_path / "images", per_class=4, classes=2)
        overrides = ["data.name=image_folder", f"data.root={tmp_path / 'images'}", "data.batch_size=4"]
    outcome = onward("check", path, "device=cpu", *overrides)
    assert (outcome.code, outcome.err) == (0, "")


def test_the_paper_preset_is_the_released_command() -> None:
    """The defaults are the released ones, so the preset differs from them in what has no released counterpart only."""
    preset = load_config(next(path for path in CONFIGS if path.name == "paper_resnet50_imagenet.yaml"))
    default = Config()
    for section in ("train", "model", "head", "noise", "optimizer"):
        assert getattr(preset, section) == getattr(default, section), section
    assert preset.data == default.data.model_copy(update={"name": "image_folder", "workers": 12, "drop_last": False})
    assert preset.objective == default.objective.model_copy(update={"reference_world_size": 16})
    assert preset.optimizer.lr * preset.data.batch_size / 256 == pytest.approx(1.6)
