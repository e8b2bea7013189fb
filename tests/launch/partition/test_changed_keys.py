"""What a plan changes can be pasted: laid over the run, it gives the configuration of the plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.partition.changed_keys import changed_keys
from launch.prepare.config_differences import flatten
from pipeline.validation.loading import load_config

PAPER = ("data.root=/path", "data.drop_last=true")


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.cuts=[layer1.0, layer2.0, layer3.1]",),
        ("stages.2.replicas=4", "stages.3.memory.recompute=views"),
        ("stages={3: {replicas: 2}}",),
        ("stages={1: {head: {chunk: 64}}, 2: {memory: {recompute: none}}}", "processes=2"),
        ("memory.recompute=units", "stages={}"),
    ],
)
def test_laid_over_the_run_they_give_the_same_stages(repository: Path, overrides: tuple[str, ...]) -> None:
    file = repository / "configs/paper_resnet50_imagenet.yaml"
    before, after = load_config(file, PAPER), load_config(file, [*PAPER, *overrides])
    changes = [f"{key}={json.dumps(value)}" for key, value in flatten(changed_keys(before, after)).items()]
    pasted = load_config(file, [*PAPER, *changes])
    assert pasted.model == after.model
    assert pasted.processes == after.processes
    assert [pasted.stage(k) for k in range(1, 5)] == [after.stage(k) for k in range(1, 5)]


def test_nothing_has_changed(repository: Path) -> None:
    config = load_config(repository / "configs/quickstart.yaml")
    assert changed_keys(config, config) == {}
