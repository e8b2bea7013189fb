"""What a real run leaves behind and shows while it runs; the paper's preset through the same path."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from safetensors.torch import load_file

from tests.marks import slow
from tests.recovery import faults, pause
from tests.runs import LIMIT, ROOT, report, start, train, wait_for_steps
from tests.workers.evaluating.evaluating_runs import image_folder
from workers.observing.observer import TIMES

pytestmark = pytest.mark.processes

BACKBONE = "backbone.safetensors"
LAST_LINE = re.compile(r"step +4/4 .*images/s +loss( \d+\.\d+){4} +0:00 left")


def test_a_run_directory_holds_what_the_documentation_says(tmp_path: Path) -> None:
    few = f"data={{name: image_folder, root: {image_folder(tmp_path / 'images')}, batch_size: 8, image_size: 16}}"
    result = train(tmp_path, few, "train.max_steps=4", "evaluation.linear_probe=true")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    run = tmp_path / "run"
    assert {path.name for path in (run / "final").iterdir()} == {
        BACKBONE,
        *(f"stage_{k}.safetensors" for k in range(1, 5)),
    }
    assert {path.name for path in (run / "logs").iterdir()} >= {"coordinator.log", "stage_1.log", "stage_4.log"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert [stage["stage"] for stage in lines[3]["stages"]] == [1, 2, 3, 4]
    assert all(stage["loss"] > 0 for line in lines for stage in line["stages"])
    values = report(tmp_path)
    assert values["images"] == 4 * 8
    assert [score["block"] for score in values["trained"]] == [1, 2, 3, 4]
    assert all(0.6 < score["trunk"] <= 1 for score in values["untrained"]), "two classes, one of which is brighter"
    assert all(abs(sum(row[k] for k in TIMES) - 1) < 1e-6 for row in values["stages"])
    assert LAST_LINE.search(result.stdout)
    assert str(run) in result.stdout
    assert "\x1b" not in result.stdout


def test_the_endpoint_serves_a_run_that_is_running(tmp_path: Path) -> None:
    process = start(tmp_path, faults(pause(tmp_path / "go", 1, 5)))
    wait_for_steps(tmp_path, 3, process)
    url = json.loads((tmp_path / "run" / "coordinator.json").read_text())["metrics"]
    with urllib.request.urlopen(url, timeout=10) as answer:
        families = {f.name: f for f in text_string_to_metric_families(answer.read().decode())}
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert url in out
    assert families["onward_samples"].samples[0].value >= 3 * 64
    busy = {
        s.labels["stage"]: s.value for s in families["onward_stage_busy_seconds"].samples if s.name.endswith("_total")
    }
    assert busy.keys() == {"1", "2", "3", "4"}
    assert all(value > 0 for value in busy.values())
    assert {s.labels["direction"] for s in families["onward_stage_wait_seconds"].samples} == {"input", "output"}
    assert {
        "onward_step",
        "onward_link_queue_depth",
        "onward_objective_loss",
        "onward_stage_copy_seconds",
        "onward_stage_flops",
        "onward_link_bytes",
    } <= families.keys()


@pytest.mark.parametrize("name", ["resnet18", slow("resnet50")])
def test_the_backbone_loads_into_torchvision(tmp_path: Path, name: str) -> None:
    result = train(
        tmp_path,
        f"model.backbone={name}",
        "model.width=64",
        "model.stem=imagenet",
        "runtime=serial",
        "train.max_steps=1",
        "data.batch_size=4",
    )
    assert result.returncode == 0, result.stderr
    network = torchvision.models.get_model(name, weights=None)
    before = network.state_dict()["layer4.0.conv1.weight"].clone()
    network.fc = torch.nn.Identity()
    network.load_state_dict(load_file(tmp_path / "run" / "final" / BACKBONE), strict=True)
    assert not torch.equal(network.state_dict()["layer4.0.conv1.weight"], before)


def photographs(root: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    for index in range(count):
        folder = root / "train" / f"n{index % 2:08}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((96, 72), Image.Resampling.BICUBIC).save(folder / f"{index}.JPEG")
    return root


def test_the_papers_preset_trains_on_a_folder_of_jpegs(tmp_path: Path) -> None:
    preset = ROOT / "configs" / "paper_resnet50_imagenet.yaml"
    overrides = (
        f"data.root={photographs(tmp_path / 'imagenet', 8)}",
        "data.batch_size=4",
        "data.image_size=32",
        "data.workers=1",
        "head.projector=[64, 64, 64]",
        "train.max_steps=1",
        "device=cpu",
        "evaluation.linear_probe=false",
    )
    result = train(tmp_path, *overrides, config=preset)
    assert result.returncode == 0, result.stderr
    values = report(tmp_path)
    assert values["images"] == 4
    stage = load_file(tmp_path / "run" / "final" / "stage_4.safetensors")
    assert stage["head.expansion.0.weight"].shape == (2048, 2048, 1, 1)
    assert stage["block.layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
