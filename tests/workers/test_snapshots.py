"""Snapshots on disk: what is kept, and what processes that were killed leave behind."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch

from launch.run_dir import clear_unfinished
from pipeline.config import Config
from pipeline.config.run import Snapshots
from pipeline.stage import Stage
from workers.manifest import MANIFEST, StageFile
from workers.run_files import RunDir, step_numbers
from workers.snapshots import SnapshotKeeper, SnapshotWriter, Taken
from workers.weights import save_tensors

TINY = Config.model_validate(
    {"model": {"width": 8}, "head": {"width": 16, "projector": [16]}, "data": {"image_size": 32, "batch_size": 4}}
)


def write_part(run: RunDir, steps: int, stage: int = 1) -> Taken:
    """One stage's part of a snapshot, as the writer would leave it."""
    path = run.snapshot(steps) / f"stage_{stage}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = save_tensors(path, {"weight": torch.full((2,), float(steps))})
    return Taken(stage, steps, StageFile(path.name, path.stat().st_size, digest, {}))


@pytest.mark.parametrize(("every", "kept"), [(None, [10, 12]), (4, [4, 8, 10, 12]), (6, [6, 10, 12])])
def test_which_snapshots_stay(tmp_path: Path, every: int | None, kept: list[int]) -> None:
    run = RunDir(tmp_path)
    told: list[int] = []
    config = Snapshots(every=2, keep_last=2, keep_every=every)
    keeper = SnapshotKeeper(config, run, pytest.fail, committed=told.append)
    for step in range(12):
        if keeper.due(step, stages=1):
            keeper.taken(write_part(run, step + 1))
    assert step_numbers(run) == kept
    assert (keeper.committed, told) == (12, [2, 4, 6, 8, 10, 12])


def test_a_snapshot_counts_when_every_stage_has_written_its_part(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    said: list[str] = []
    keeper = SnapshotKeeper(Snapshots(every=2), run, said.append)
    assert keeper.due(1, stages=2)
    keeper.taken(write_part(run, 2, stage=2))
    assert not (run.snapshot(2) / MANIFEST).exists()
    keeper.forget([2])  # started over: what it wrote is written again
    keeper.taken(write_part(run, 2, stage=1))
    assert keeper.committed == 0
    keeper.taken(write_part(run, 2, stage=2))
    assert keeper.committed == 2
    assert keeper.due(3, stages=2)
    keeper.taken(write_part(run, 4, stage=1))
    keeper.taken(Taken(2, 4, None, "the disk is full"))
    assert said == ["no snapshot after 4 steps: stage 2: the disk is full"]
    assert step_numbers(run) == [2]


def test_what_killed_processes_were_writing_goes_and_nothing_else(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for steps in (2, 4):
        write_part(run, steps)
    (run.snapshot(2) / MANIFEST).write_text("{}")
    half = [run.snapshot(2) / ".stage_1.safetensors.71.tmp", run.snapshot(4) / ".stage_2.safetensors.72.tmp"]
    mine = [tmp_path / ".notes.tmp", tmp_path / "final.tmp", run.snapshot(2) / "stage_1.safetensors"]
    for path in (*half, *mine[:2], tmp_path / ".config.yaml.9.tmp"):
        path.write_text("half")
    clear_unfinished(run)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([*mine, run.snapshot(2) / MANIFEST])


def test_a_process_that_will_not_wait_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, reached, go_on = RunDir(tmp_path), threading.Event(), threading.Event()

    def slow_disk(file: int) -> None:
        reached.set()
        assert go_on.wait(60)

    monkeypatch.setattr(os, "fsync", slow_disk)
    taken: list[Taken] = []
    writer = SnapshotWriter(run, taken.append)
    writer.take(Stage(TINY, 1, 2, torch.device("cpu")), 2)
    assert reached.wait(60)
    assert list(tmp_path.rglob("*.tmp"))
    writer.abandon()
    assert not list(tmp_path.rglob("*.tmp"))
    go_on.set()
