"""A run whose process dies at any of its last moments: started again it ends with the same weights and results.

The moments are the writes of its last files, each of which is a renaming; a process kills itself before that.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from pipeline.validation.loading import dump_config
from tests import runs
from tests.marks import slow
from tests.recovery import fault, faults
from tests.runs import report
from tests.workers.evaluating.evaluating_runs import image_folder, small_config

pytestmark = pytest.mark.processes
Train = Callable[..., CompletedProcess[str]]
"""`tests.runs.train`, of the configuration of this file."""

DIES = """
import os, signal, sys
name, number = os.environ["DIES_AT"].rsplit(":", 1)
mark, seen = os.environ["DIES_ONCE"], [0]
def die(event, arguments):
    if event != "os.rename":
        return
    place = os.readlink(f"/proc/self/fd/{arguments[3]}") if arguments[3] >= 0 else ""
    if os.path.join(place, str(arguments[1])).endswith(name):
        seen[0] += 1
        if seen[0] == int(number):
            try:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
"""
"""Run before the command, whose processes inherit it: one kills itself before it names a file for the n-th time."""
STEPS = ("train.epochs=4", "train.max_steps=6", "snapshots.every=3", "optimizer.warmup_epochs=1", "threads=1")
PER_EPOCH, PER_PHASE = 5, 3
SEQUENTIAL = (*STEPS, "mode=sequential", f"train.max_steps={PER_PHASE}", "evaluation.linear_probe=false")
WRITES = {
    "the manifest of the last step": "step_6/manifest.json:1",
    "a part of the last snapshot": "step_6/stage_2.safetensors:1",
    "the weights of a stage": "final/stage_2.safetensors:1",
    "the backbone": "final/backbone.safetensors:1",
    "the report": "report.json:1",
    "the probes": "report.json:2",
}
"""Before what the process dies, and which file that is."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network of two blocks, and of a few images with a test split, so that there are probes."""
    folder = tmp_path_factory.mktemp("config")
    path = folder / "config.yaml"
    path.write_text(dump_config(small_config(image_folder(folder / "data"))))
    return path


@pytest.fixture
def train(config: Path) -> Train:
    return functools.partial(runs.train, config=config)


def results(folder: Path) -> dict[str, Any]:
    """What two equal runs agree on."""
    found = report(folder)
    return {name: found[name] for name in ("final_digest", "untrained", "trained")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, config: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    done = runs.train(folder, *STEPS, "runtime=serial", config=config)
    assert done.returncode == 0, done.stderr
    return results(folder)


def deadly(folder: Path, at: str) -> dict[str, str]:
    """The environment of a run of which a process dies at a moment, once."""
    hook = folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(DIES)
    return {"PYTHONPATH": str(hook), "DIES_AT": at, "DIES_ONCE": str(folder / "died")}


def dies(train: Train, folder: Path, at: str, *overrides: str) -> None:
    result = train(folder, *overrides, environment=deadly(folder, at))
    assert result.returncode != 0, result.stdout
    assert (folder / "died").exists(), result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("moment", "runtime"),
    [
        ("the probes", "pipelined"),
        *(slow(moment, "pipelined") for moment in WRITES if moment != "the probes"),
        *(slow(moment, "serial") for moment in WRITES),
    ],
)
def test_killed_before(train: Train, moment: str, runtime: str, whole: dict[str, Any], tmp_path: Path) -> None:
    dies(train, tmp_path, WRITES[moment], *STEPS, f"runtime={runtime}")
    again = train(tmp_path, *STEPS, f"runtime={runtime}")
    assert (again.returncode, again.stderr) == (0, ""), again.stdout
    assert results(tmp_path) == whole
    assert "to_be_measured" not in report(tmp_path)
    assert not (tmp_path / "run" / "failure.json").exists()
    after = train(tmp_path, *STEPS, f"runtime={runtime}")
    assert "has been trained to its end: nothing to do" in after.stdout


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["the backbone", "the probes"])
def test_a_run_that_may_start_again_does_so_by_itself(
    train: Train, moment: str, whole: dict[str, Any], tmp_path: Path
) -> None:
    """It trained all from the beginning when its coordinator died after the report."""
    environment = deadly(tmp_path, WRITES[moment])
    result = train(tmp_path, *STEPS, "restart=job", environment=environment)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "died").exists()
    assert results(tmp_path) == whole


@pytest.fixture(scope="module")
def in_turn(tmp_path_factory: pytest.TempPathFactory, config: Path) -> str:
    folder = tmp_path_factory.mktemp("in_turn")
    assert runs.train(folder, *SEQUENTIAL, "runtime=serial", config=config).returncode == 0
    return str(report(folder)["final_digest"])


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["pipelined", "serial"])
@pytest.mark.parametrize("phase", [1, 2])
def test_killed_after_the_last_snapshot_of_a_phase(
    train: Train, phase: int, runtime: str, in_turn: str, tmp_path: Path
) -> None:
    """In mode sequential the stages after it have learned nothing yet, and have no part of that snapshot."""
    step = phase * PER_PHASE - 1
    more = (*SEQUENTIAL, f"runtime={runtime}")
    dies(train, tmp_path, f"step_{step + 1}/manifest.json:1", *more)
    assert train(tmp_path, *more).returncode == 0
    assert report(tmp_path)["final_digest"] == in_turn


@pytest.mark.slow
def test_killed_at_the_first_step_of_an_epoch(train: Train, tmp_path: Path) -> None:
    """The snapshot is that of the last step of the one before."""
    epochs = (*STEPS, "train.max_steps=7", f"snapshots.every={PER_EPOCH}")
    (tmp_path / "whole").mkdir()
    assert train(tmp_path / "whole", *epochs, "runtime=serial").returncode == 0
    result = train(tmp_path, *epochs, faults(fault("kill", 2, PER_EPOCH)))
    assert result.returncode == 1
    assert train(tmp_path, *epochs).returncode == 0
    assert report(tmp_path)["final_digest"] == report(tmp_path / "whole")["final_digest"]


def test_weights_that_are_not_those_of_the_report_are_not_measured(
    train: Train, tmp_path: Path, whole: dict[str, Any]
) -> None:
    assert train(tmp_path, *STEPS, "runtime=serial").returncode == 0
    run = tmp_path / "run"
    found = json.loads((run / "report.json").read_text())
    (run / "report.json").write_text(json.dumps({**found, "to_be_measured": True}))
    part = run / "final" / "stage_1.safetensors"
    part.write_bytes(part.read_bytes()[:-1])
    again = train(tmp_path, *STEPS, "runtime=serial")
    assert "going on from the snapshot after 6 steps" in again.stdout
    assert results(tmp_path) == whole
