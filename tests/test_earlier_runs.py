"""What an earlier version wrote stays readable: a run directory that goes on, is measured, reported and exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.marks import slow
from tests.runs import onward, report, train
from workers.observing.observer import TIMES

pytestmark = pytest.mark.processes

FIXTURE = Path(__file__).parent / "fixtures" / "run_of_c63147f"
RECORDED = "7f7e5613d9d53711bbf6b8706a3771ebbad335765a7995bce4e448cfbc1ef34a"
STAGES = (1, 2)
NO_PROBE = "evaluation.linear_probe=false"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the finished run, whole again."""
    copy = tmp_path / "run"
    shutil.copytree(FIXTURE, copy)
    for stage in STAGES:
        shutil.copy(copy / "final" / f"stage_{stage}.safetensors", copy / "snapshots" / "step_6")
    return copy


def unfinished(run: Path, steps: int) -> None:
    """As if it had been stopped after the snapshot after `steps` steps."""
    shutil.rmtree(run / "final")
    (run / "report.json").unlink()
    for later in {4, 6} - {steps}:
        if later > steps:
            shutil.rmtree(run / "snapshots" / f"step_{later}")


def test_it_has_been_trained_to_its_end(run: Path) -> None:
    result = train(run.parent, config=run / "config.yaml")
    assert (result.returncode, result.stderr) == (0, "")
    assert "has been trained to its end: nothing to do" in result.stdout
    assert report(run.parent)["final_digest"] == RECORDED


@pytest.mark.parametrize("runtime", ["pipelined", slow("serial")])
def test_every_tensor_of_its_last_snapshot_comes_back_to_the_bit(run: Path, runtime: str) -> None:
    """No step is left to train, so the recorded digest is that of every processor."""
    unfinished(run, 6)
    result = train(run.parent, f"runtime={runtime}", NO_PROBE, config=run / "config.yaml")
    assert (result.returncode, result.stderr) == (0, "")
    assert report(run.parent)["final_digest"] == RECORDED


def test_it_goes_on_to_where_it_came_to(run: Path) -> None:
    recorded = {stage: load_file(run / "final" / f"stage_{stage}.safetensors") for stage in STAGES}
    before = (run / "metrics.jsonl").read_text().splitlines()
    unfinished(run, 4)
    again = run.parent / "again"
    shutil.copytree(run, again / "run")
    result = train(run.parent, NO_PROBE, config=run / "config.yaml")
    assert (result.returncode, result.stderr) == (0, "")
    assert "going on from the snapshot after 4 steps" in result.stdout
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert lines[:4] == before[:4]
    assert report(run.parent)["images"] == 6 * 64, "of all steps, not of the last two"
    for shares in report(run.parent)["stages"]:  # its lines do not say how long a stage copied
        assert abs(sum(shares[name] for name in TIMES) - 1) < 1e-6
        assert 0 < shares["copying"] < 1
    assert [json.loads(line)["step"] for line in lines] == list(range(6))
    assert train(again, "runtime=serial", NO_PROBE, config=run / "config.yaml").returncode == 0
    assert report(again)["final_digest"] == report(run.parent)["final_digest"]
    # Another processor rounds in another way. Two steps make 1e-5 of that; other images, noise or momentum 1e-1.
    for stage in STAGES:
        found = load_file(run / "final" / f"stage_{stage}.safetensors")
        assert found.keys() == recorded[stage].keys()
        one, other = (torch.cat([t[name].double().flatten() for name in sorted(t)]) for t in (found, recorded[stage]))
        assert (one - other).norm() < 1e-3 * other.norm(), stage


def test_it_is_evaluated_reported_and_exported(run: Path, tmp_path: Path) -> None:
    evaluated = onward("evaluate", run)
    assert evaluated.returncode == 0, evaluated.stderr
    found = json.loads((run / "evaluation.json").read_text())
    assert {block["block"] for block in found["results"]} == set(STAGES)
    reported = onward("report", run)
    assert reported.returncode == 0, reported.stderr
    assert "7f7e5613" in (run / "report.html").read_text()
    exported = onward("export", run, tmp_path / "backbone.safetensors")
    assert exported.returncode == 0, exported.stderr
    weights, kept = (load_file(folder / "backbone.safetensors") for folder in (tmp_path, run / "final"))
    assert weights.keys() == kept.keys()
    assert all(torch.equal(weights[name], kept[name]) for name in kept)
