"""A run that is stopped at any moment and started again ends with the bits of one that was never stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.marks import slow
from tests.recovery import killed
from tests.runs import bits, onward, time_lost, train

pytestmark = pytest.mark.processes

STEPS = ("train.max_steps=10", "snapshots.every=4", "digests.every=3")
Bits = tuple[str, dict[int, dict[int, dict[str, str]]]]
MIXED = (
    "stages.1={objective: {kind: byol, predictor: [32]}, optimizer: {kind: adamw, lr: 0.001}}",
    "stages.2={objective: {kind: supervised}, head: {projector: [10]}, optimizer: {kind: sgd, nesterov: true}}",
    "stages.3={objective: {kind: vicreg}, optimizer: {kind: lars_lr_in_momentum}}",
    "stages.4.objective={kind: lejepa, directions: 16}",
)


def uninterrupted(folder: Path, *overrides: str) -> Bits:
    folder.mkdir()
    result = train(folder, *STEPS, "runtime=serial", *overrides)
    assert result.returncode == 0, result.stderr
    return bits(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Bits:
    return uninterrupted(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def killed_after_8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose second stage died; tests go on with copies."""
    folder = tmp_path_factory.mktemp("killed")
    killed(folder, (2, 9), *STEPS, snapshot=8)
    return folder / "run"


@pytest.mark.parametrize(
    ("at", "first", "then"),
    [
        ((3, 6), (), ()),
        pytest.param((1, 9), (), ("link.kind=rpc", "link.depth=3"), marks=pytest.mark.slow),
        slow((4, 5), ("link.kind=rpc",), ("runtime=serial",)),
        ((2, 8), ("runtime=serial", "memory.recompute=views"), ("runtime=pipelined", "memory.recompute=units")),
    ],
    ids=["same command", "queue then rpc", "rpc then serial", "serial then pipelined"],
)
def test_killed_and_started_again(
    whole: Bits, tmp_path: Path, at: tuple[int, int], first: tuple[str, ...], then: tuple[str, ...]
) -> None:
    newest = at[1] // 4 * 4
    killed(tmp_path, at, *STEPS, *first, snapshot=newest)
    result = train(tmp_path, *STEPS, *then)
    assert result.returncode == 0, result.stderr
    assert f"going on from the snapshot after {newest} steps" in result.stdout
    assert bits(tmp_path) == whole
    manifest = json.loads((tmp_path / "run" / "snapshots" / "step_8" / "manifest.json").read_text())
    kept = {int(stage): part["counters"]["digest_chain"] for stage, part in manifest["stages"].items()}
    assert kept == {stage: found["chain"] for stage, found in whole[1][5].items()}, "of the last one before it"
    lines = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(10))
    assert time_lost(tmp_path) >= {"start"}
    assert not (tmp_path / "run" / "failure.json").exists()


@pytest.mark.parametrize("method", [MIXED, slow(("mode=sequential", "train.max_steps=5"))], ids=["mixed", "sequential"])
def test_every_method_resumes(tmp_path: Path, method: tuple[str, ...]) -> None:
    whole = uninterrupted(tmp_path / "whole", *method)
    folder = tmp_path / "stopped"
    folder.mkdir()
    killed(folder, (2, 9), *STEPS, *method, snapshot=8)
    result = train(folder, *STEPS, *method)
    assert result.returncode == 0, result.stderr
    assert "going on from the snapshot after 8 steps" in result.stdout
    assert bits(folder) == whole


@pytest.mark.slow
def test_a_run_that_stopped_before_its_first_snapshot_starts_over(whole: Bits, tmp_path: Path) -> None:
    killed(tmp_path, (3, 1), *STEPS)
    result = train(tmp_path, *STEPS)
    assert "no snapshot to go on from: starting over" in result.stdout
    assert bits(tmp_path) == whole


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:], "stage_2.safetensors' is damaged"),
        slow(lambda data: data[:5000], "stage_2.safetensors' has 5000 bytes, and the manifest says"),
    ],
    ids=["flipped", "torn"],
)
def test_a_damaged_snapshot_is_passed_over(
    whole: Bits, killed_after_8: Path, tmp_path: Path, harm: Callable[[bytes], bytes], problem: str
) -> None:
    shutil.copytree(killed_after_8, tmp_path / "run")
    part = tmp_path / "run" / "snapshots" / "step_8" / "stage_2.safetensors"
    part.write_bytes(harm(part.read_bytes()))
    result = train(tmp_path, *STEPS, "runtime=serial")
    assert result.returncode == 0, result.stderr
    assert "snapshot after 8 steps passed over: " in result.stdout
    assert problem in result.stdout
    assert "going on from the snapshot after 4 steps" in result.stdout
    assert bits(tmp_path) == whole


def test_a_finished_run_is_left_alone_and_another_one_refused(tmp_path: Path) -> None:
    assert train(tmp_path, *STEPS, "runtime=serial").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    result = train(tmp_path, *STEPS, "runtime=pipelined")
    assert (result.returncode, result.stderr) == (0, "")
    assert "has been trained to its end: nothing to do" in result.stdout
    result = train(tmp_path, *STEPS, "noise.std=0.3", "seed=5")
    assert result.returncode == 2
    assert "another configuration: seed is 1 there, 5 here; noise.std is 0.25 there, 0.3 here" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_run_that_was_moved_is_resumed_where_it_lies(whole: Bits, killed_after_8: Path, tmp_path: Path) -> None:
    """What an interrupted run prints to be pasted needs neither its configuration nor its first place."""
    moved = tmp_path / "elsewhere" / "my run"
    shutil.copytree(killed_after_8, moved)
    before = sorted(killed_after_8.rglob("*"))
    result = onward("resume", moved)
    assert result.returncode == 0, result.stderr
    assert "going on from the snapshot after 8 steps" in result.stdout
    assert sorted(killed_after_8.rglob("*")) == before
    moved.rename(tmp_path / "elsewhere" / "run")
    assert bits(tmp_path / "elsewhere") == whole
    missing = onward("resume", tmp_path / "elsewhere" / "nothing")
    assert missing.returncode == 2
    assert missing.stderr.endswith(f"nothing' does not exist. These have snapshots: {tmp_path / 'elsewhere' / 'run'}\n")
