"""Runs with `evaluation.online`: the trained bits are those of a run without, and what is measured survives a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.marks import slow
from tests.runs import report, train

pytestmark = pytest.mark.processes

ONLINE = "evaluation.online={linear: true, knn_bank: 192, knn_k: 5, quality_every: 4, quality_samples: 100}"
STEPS = ("train.max_steps=10", "snapshots.every=4")
MEASURES = {"linear", "knn", "rankme", "alpha", "alpha_r2", "collapse", "lidar"}


def trained(folder: Path, *overrides: str) -> Path:
    folder.mkdir(exist_ok=True)
    result = train(folder, *STEPS, *overrides)
    assert result.returncode == 0, result.stderr
    return folder


def said(folder: Path) -> dict[tuple[int, int], dict[str, float]]:
    """What was measured, by step and stage."""
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return {(line["step"], stage["stage"]): stage.get("online", {}) for line in lines for stage in line["stages"]}


def probes(folder: Path) -> dict[str, Any]:
    """Every tensor of every probe, as bytes."""
    paths = sorted((folder / "run" / "final").glob("probe_*.safetensors"))
    return {f"{path.stem}.{name}": t.numpy().tobytes() for path in paths for name, t in load_file(path).items()}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("online") / "serial", "runtime=serial", ONLINE)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = trained(tmp_path_factory.mktemp("plain") / "serial", "runtime=serial")
    assert probes(folder) == {}
    assert not any(said(folder).values())
    return str(report(folder)["final_digest"])


def test_measures_change_no_bit_of_what_is_trained(serial: Path, plain: str) -> None:
    assert report(serial)["final_digest"] == plain
    found = said(serial)
    assert {(step, stage) for step, stage in found} == {(step, stage) for step in range(10) for stage in range(1, 5)}
    assert all(found[7, stage].keys() == MEASURES for stage in range(1, 5))
    assert all(found[8, stage].keys() == {"linear", "knn"} for stage in range(1, 5))
    assert len(probes(serial)) == 4 * 4


@pytest.mark.parametrize("how", [(), slow("link.kind=rpc"), slow("processes=2")])
def test_the_pipeline_measures_what_the_serial_run_does(
    serial: Path, plain: str, tmp_path: Path, how: str | tuple[str, ...]
) -> None:
    folder = trained(tmp_path / "pipelined", ONLINE, *([how] if isinstance(how, str) else how))
    assert report(folder)["final_digest"] == plain
    assert said(folder) == said(serial)
    assert probes(folder) == probes(serial)


@pytest.mark.parametrize("then", [(), slow(("runtime=serial",))], ids=["same command", "in one process"])
def test_a_run_that_was_killed_goes_on_measuring(
    serial: Path, plain: str, tmp_path: Path, then: tuple[str, ...]
) -> None:
    died = train(tmp_path, *STEPS, ONLINE, "faults=[{kind: kill, stage: 2, step: 6}]")
    assert died.returncode == 1
    folder = trained(tmp_path, ONLINE, *then)
    assert report(folder)["final_digest"] == plain
    assert said(folder) == said(serial)
    assert probes(folder) == probes(serial)


def test_a_stage_that_comes_back_goes_on_measuring(serial: Path, plain: str, tmp_path: Path) -> None:
    folder = trained(tmp_path, ONLINE, "restart=stage", "faults=[{kind: kill, stage: 3, step: 6}]")
    assert report(folder)["final_digest"] == plain
    assert said(folder) == said(serial)
    assert probes(folder) == probes(serial)


def test_replicas_measure_the_whole_batch(serial: Path, tmp_path: Path) -> None:
    counts = ("stages.1.replicas=2", "stages.3.replicas=2")
    folder = trained(tmp_path / "measured", ONLINE, *counts)
    without = trained(tmp_path / "plain", *counts)
    assert report(folder)["final_digest"] == report(without)["final_digest"]
    found, expected = said(folder), said(serial)
    assert {key: value.keys() for key, value in found.items()} == {k: v.keys() for k, v in expected.items()}
    # Rounding differs; before it has grown, few images of 64 can change sides.
    for stage in range(1, 5):
        assert abs(found[0, stage]["linear"] - expected[0, stage]["linear"]) <= 1 / 64
        quality = MEASURES - {"linear", "knn"}
        assert {name: found[3, stage][name] for name in quality} == pytest.approx(
            {name: expected[3, stage][name] for name in quality}, rel=1e-3
        )
    assert len(probes(folder)) == 4 * 4


def test_a_snapshot_without_measures_can_be_taken_up_with_them(plain: str, tmp_path: Path) -> None:
    died = train(tmp_path, *STEPS, "runtime=serial", "faults=[{kind: raise, stage: 2, step: 6}]")
    assert died.returncode == 1
    folder = trained(tmp_path, "runtime=serial", ONLINE)
    assert report(folder)["final_digest"] == plain
    assert {step for step, _ in said(folder) if said(folder)[step, 1]} == set(range(4, 10))


def test_the_terminal_shows_the_accuracy_of_every_block(tmp_path: Path) -> None:
    result = train(tmp_path, "runtime=serial", "train.max_steps=2", "evaluation.online.linear=true")
    assert result.returncode == 0, result.stderr
    (last,) = [line for line in result.stdout.splitlines() if line.startswith("step 2/2")]
    shown = last.partition("probe ")[2].split(" %")[0].split()
    assert [float(number) for number in shown] == [
        pytest.approx(100 * said(tmp_path)[1, stage]["linear"], abs=0.06) for stage in range(1, 5)
    ]


def test_labels_that_are_not_there_are_named_before_anything_starts(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(70):
        Image.new("RGB", (28, 28)).save(tmp_path / f"{number}.png")
    data = ("data.name=image_folder", f"data.root={tmp_path}", "data.split=unlabeled")
    result = train(tmp_path, *data, "evaluation.online.linear=true")
    assert result.returncode == 2
    assert "evaluation.online.linear: needs labels, and the images of image_folder have none" in result.stderr
    assert len(result.stderr.splitlines()) == 1
