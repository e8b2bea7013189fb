"""Every preset in `configs/` is accepted, and its header says how to run it, how long it takes and what to expect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.prepare.prepared_run import dry_run
from pipeline.config import Config
from pipeline.config.model import ViTConfig
from pipeline.validation.loading import load_config, load_for_start
from tests.documents import PRESETS as CONFIGS
from tests.documents import header
from tests.marks import slow
from tests.recovery import killed
from tests.runs import report, train


def test_there_are_presets() -> None:
    names = "barlow_twins_imagenet byol_cifar10 byol_imagenet end_to_end image_folder paper_resnet50_imagenet"
    names += " quickstart sequential simclr_single_gpu supervised_blockwise vicreg_imagenet deepspeed_zero1"
    names += " paper_resnet50_imagenet_8gpus paper_resnet50_imagenet_24gb lejepa_fashion lejepa_vit_small"
    assert {path.stem for path in CONFIGS} == set(names.split())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_header_gives_command_time_and_number(path: Path) -> None:
    text = header(path)
    assert re.search(rf"^Command: onward train configs/{re.escape(path.name)}\b", text, re.M), text
    assert re.search(r"^Time: +(.*\d|not measured)", text, re.M), text
    assert re.search(r"^Expect: +(.*\d|not measured)", text, re.M), text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_preset_passes_every_check(path: Path, tmp_path: Path, make_image_folder: Callable[..., Path]) -> None:
    overrides = ["device=cpu"]
    if load_config(path).data.name != "fashion_mnist_10k":  # a small stand-in for data that is not here
        make_image_folder(tmp_path / "images", per_class=4, classes=2)
        overrides += ["data.name=image_folder", f"data.root={tmp_path / 'images'}", "data.batch_size=8"]
    config, notes = load_for_start(path, overrides)
    assert notes == []
    assert dry_run(config).total_steps > 0


def shrunk(config: Config) -> list[str]:
    """Overrides that leave the method of a preset and make the network, the images and the run tiny."""
    last = config.head.projector[-1] if config.objective.kind == "supervised" else 16
    byol = ["objective.predictor=[16, 16]"] if config.objective.kind == "byol" else []
    replicas = any(config.replicas_of(index) > 1 for index in range(1, config.num_stages + 1))
    return [
        *byol,
        "data.name=fashion_mnist_10k",
        "data.root=null",
        "data.batch_size=16",
        "data.image_size=32",
        "data.progressive=null",
        "data.workers=0",
        "data.download=false",
        *_small_network(config),
        f"head.projector=[16, {last}]",
        *(["head.width=16"] if config.head.kind == "expansion" else []),
        "train.max_steps=2",
        "evaluation.linear_probe=false",
        "metrics.enabled=false",
        f"runtime={'pipelined' if replicas else 'serial'}",
        "threads=1",
    ]


def _small_network(config: Config) -> list[str]:
    if isinstance(config.model, ViTConfig):
        return ["model.hidden_dim=16", "model.num_heads=2", "model.mlp_dim=32"]
    return ["model.width=8"]


@pytest.mark.processes
@pytest.mark.parametrize(
    "path", [slow(path) if "imagenet" in path.name else path for path in CONFIGS], ids=[path.name for path in CONFIGS]
)
def test_the_preset_trains_two_tiny_steps(path: Path, tmp_path: Path) -> None:
    result = train(tmp_path, *shrunk(load_config(path)), config=path)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    blocks = 4 if load_config(path).mode == "sequential" else 1
    assert len(lines) == 2 * blocks
    assert any("loss" in stage for line in lines for stage in line["stages"])
    assert not any(stage["skipped"] for line in lines for stage in line["stages"])
    assert (tmp_path / "run" / "final" / "backbone.safetensors").is_file()


PAPER = next(path for path in CONFIGS if path.stem == "paper_resnet50_imagenet")


def test_the_paper_preset_is_the_released_command() -> None:
    """The defaults are the released ones, so the preset differs from them in what has no released counterpart only."""
    preset = load_config(PAPER)
    default = Config()
    for section in ("train", "model", "head", "noise", "optimizer"):
        assert getattr(preset, section) == getattr(default, section), section
    assert preset.data == default.data.model_copy(update={"name": "image_folder", "workers": 12, "drop_last": False})
    assert preset.objective == default.objective.model_copy(update={"reference_world_size": 16})
    assert preset.optimizer.lr * preset.data.batch_size / 256 == pytest.approx(1.6)
    saving = {index: [stage.memory, stage.head] for index, stage in preset.stages.items()}
    assert saving == {1: [{"recompute": "units"}, {"chunk": 128}], 2: [{"recompute": "units"}, {}]}


EIGHT = ["stages.1.replicas=4", "stages.2.replicas=2", "data.drop_last=true", "snapshots.every=625"]
SMALL = ["runtime=serial", "stages.1.head.chunk=32", "data.batch_size=256", "snapshots.every=5005"]
DEEPSPEED = [
    "engine.kind=deepspeed",
    "optimizer={kind: adamw, lr: 0.001, warmup_epochs: 1}",
    "stages={1: {replicas: 2}}",
    "data.drop_last=true",
    "snapshots.every=39",
]


@pytest.mark.parametrize(
    ("variant", "of", "overrides"),
    [
        ("paper_resnet50_imagenet_8gpus", PAPER, EIGHT),
        ("paper_resnet50_imagenet_24gb", PAPER, SMALL),
        ("deepspeed_zero1", PAPER.with_stem("quickstart"), DEEPSPEED),
    ],
)
def test_a_variant_differs_from_its_preset_in_what_it_says(variant: str, of: Path, overrides: list[str]) -> None:
    assert load_config(of.with_stem(variant)) == load_config(of, overrides)


@pytest.mark.processes
@pytest.mark.slow  # every process imports DeepSpeed
def test_the_deepspeed_preset_goes_on_to_the_bit(tmp_path: Path) -> None:
    path = next(path for path in CONFIGS if path.stem == "deepspeed_zero1")
    given = [*shrunk(load_config(path)), "train.max_steps=6", "snapshots.every=2"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    assert train(whole, *given, config=path).returncode == 0
    killed(stopped, (1, 5), *given, snapshot=4, config=path)
    again = train(stopped, *given, "evaluation.linear_probe=true", config=path)  # the network without its engines
    assert again.returncode == 0, again.stderr
    assert len(report(stopped)["trained"]) == 4
    assert "going on from the snapshot after 4 steps" in again.stdout
    assert report(stopped)["final_digest"] == report(whole)["final_digest"]
