"""A run directory to evaluate, made without training: a small network with known weights, and a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.config import Config
from pipeline.serial import build_stages
from pipeline.stage.stage import Stage
from pipeline.stage.state import stage_counters, stage_tensors
from pipeline.validation.loading import dump_config, parse_config
from workers.evaluating.context import Context
from workers.evaluating.feature_source import FeatureSource
from workers.evaluating.ranks import Ranks
from workers.run.files import RunDir, write_json
from workers.run.tensor_files import save_tensors
from workers.snapshots.manifest import Manifest, StageFile
from workers.snapshots.weights import save_stage

CPU = torch.device("cpu")
TRAIN, TEST, SIZE = 22, 9, 16


def image_folder(root: Path, test: bool = True) -> Path:
    """Two classes of a brightness each, `TRAIN` and `TEST` images; some have another size than the network takes."""
    random = np.random.default_rng(0)
    for part, count in (("train", TRAIN), ("val", TEST)) if test else (("train", TRAIN),):
        for index in range(count):
            label, side = index % 2, SIZE if index % 3 else 24
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(90 * label, 90 * label + 150, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def small_config(root: Path, **evaluation: object) -> Config:
    """Two blocks, 16 pixels; batches of 4 images in an evaluation."""
    return parse_config(
        {
            "seed": 3,
            "data": {"name": "image_folder", "root": str(root), "batch_size": 4, "image_size": SIZE},
            "model": {"backbone": "resnet18", "width": 4, "stem": "cifar", "cuts": ["layer2.0"]},
            "head": {"width": 8, "projector": [8, 6]},
            "device": "cpu",
            "metrics": {"enabled": False},
            "evaluation": {"batch_size": 4, "workers": 2, **evaluation},
        }
    )


def network(config: Config, seed: int = 0, scale: float = 1.0) -> list[Stage]:
    """In evaluation mode, with weights that training would not give but that depend on `seed`."""
    stages = build_stages(config, 1)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for stage in stages:
            for parameter in stage.parameters():
                parameter.add_(0.05 * scale * torch.randn(parameter.shape, generator=source))
            stage.eval()
    return stages


def make_run(folder: Path, config: Config, *, trained: bool = True, snapshots: tuple[int, ...] = ()) -> RunDir:
    """A run directory with its weights: those of `network(config)`, and of seed N in the snapshot after N steps."""
    run = RunDir(folder)
    run.logs.mkdir(parents=True)
    run.config.write_text(dump_config(config))
    if trained:
        for stage in network(config):
            save_stage(run, stage)
    for steps in snapshots:
        snapshot(run, network(config, seed=steps), steps)
    return run


def snapshot(run: RunDir, stages: list[Stage], steps: int) -> None:
    parts = {}
    for stage in stages:
        path = run.snapshot(steps) / f"stage_{stage.index}.safetensors"
        digest = save_tensors(path, stage_tensors(stage))
        parts[stage.index] = StageFile(path.name, path.stat().st_size, digest, stage_counters(stage))
    write_json(run.snapshot(steps) / "manifest.json", Manifest(steps, parts).to_json())


def context_of(
    config: Config, folder: Path | None = None, notes: list[str] | None = None, ranks: Ranks | None = None
) -> Context:
    """What a measure of this run is given; features are kept in `folder`."""
    stages, said = network(config), [] if notes is None else notes
    source = FeatureSource(config, stages, CPU, folder, said.append, ranks)
    return Context(config, stages, CPU, folder or Path(), source, config.data, config.data.name, note=said.append)
