"""Snapshots on disk: what is kept, and what processes that were killed leave behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from launch.prepare.run_dir import clear_unfinished
from pipeline.config import Config
from pipeline.config.run import SnapshotsConfig
from pipeline.errors import UserError
from pipeline.stage.stage import Stage
from pipeline.validation.loading import parse_config
from tests.waiting import LIMIT
from workers.run.files import RunDir, step_numbers, write_json
from workers.run.tensor_files import save_tensors
from workers.snapshots import writer as writing
from workers.snapshots.committer import SnapshotCommitter
from workers.snapshots.manifest import MANIFEST, Manifest, StageFile
from workers.snapshots.restore import restore
from workers.snapshots.writer import SnapshotPart, SnapshotWriter

TINY = Config.model_validate(
    {"model": {"width": 8}, "head": {"width": 16, "projector": [16]}, "data": {"image_size": 32, "batch_size": 4}}
)


def restored(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Go on from a snapshot of a stage that made a step, in which a tensor was changed and the manifest with it."""
    config = parse_config({**TINY.model_dump(mode="json"), "optimizer": {"kind": "adamw", "warmup_epochs": 1}})
    stage, run, taken = Stage(config, 1, 4), RunDir(folder), []
    for parameter in stage.parameters():
        parameter.grad = torch.ones_like(parameter)
    stage.engine.step()
    with SnapshotWriter(run, taken.append) as writer:
        writer.take(stage, 2)
    path = run.snapshot(2) / "stage_1.safetensors"
    tensors = load_file(path)
    change(tensors)
    digest = save_tensors(path, tensors)
    file = replace(taken[0].file, bytes=path.stat().st_size, sha256=digest)
    write_json(run.snapshot(2) / MANIFEST, Manifest(2, {1: file}).to_json())
    restore(run, 2, [Stage(config, 1, 4)])


CONV, COUNTER = "block.conv1.weight", "block.bn1.num_batches_tracked"


MOMENTUM = f"optimizer.exp_avg.{CONV}"
CHANGES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "momentum": (lambda t: t.pop(MOMENTUM), rf"and was written with \d+: it lacks some, such as '{MOMENTUM}'"),
    "one kind": (lambda t: [t.pop(name) for name in list(t) if "exp_avg_sq" in name], "it lacks some"),
    "all state": (lambda t: [t.pop(name) for name in list(t) if "optimizer." in name], "it has 0 tensors of the optim"),
    "counter": (lambda t: t.update({COUNTER: t[COUNTER].double()}), rf"'{COUNTER}' is float64 .* and int64 \[\]"),
    "weight": (lambda t: t.update({CONV: t[CONV].double()}), rf"'{CONV}' is float64 \[8, 3, 7, 7\] .* and float32"),
    "half a weight": (lambda t: t.update({CONV: t[CONV].half()}), rf"'{CONV}' is float16"),
    "its shape": (lambda t: t.update({MOMENTUM: t[CONV][:1]}), r"is float32 \[1, 3, 7, 7\] in the file, and the"),
    "its type": (lambda t: t.update({MOMENTUM: t[CONV].long()}), r"is int64 \[8, 3, 7, 7\] in the file, and the"),
    "no weight": (lambda t: t.pop(CONV), rf"it has no '{CONV}'"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=list(CHANGES))
def test_a_snapshot_that_lacks_a_tensor_or_has_another_type_is_refused_by_name(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"does not fit stage 1 \(.*{message}"):
        restored(tmp_path, change)


def test_a_snapshot_as_it_was_written_fits(tmp_path: Path) -> None:
    restored(tmp_path, lambda tensors: None)


def write_part(run: RunDir, steps: int, stage: int = 1) -> SnapshotPart:
    """One stage's part of a snapshot, as the writer would leave it."""
    path = run.snapshot(steps) / f"stage_{stage}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = save_tensors(path, {"weight": torch.full((2,), float(steps))})
    return SnapshotPart(stage, steps, StageFile(path.name, path.stat().st_size, digest, {}))


@pytest.mark.parametrize(("every", "kept"), [(None, [10, 12]), (4, [4, 8, 10, 12]), (6, [6, 10, 12])])
def test_which_snapshots_stay(tmp_path: Path, every: int | None, kept: list[int]) -> None:
    run = RunDir(tmp_path)
    told: list[int] = []
    config = SnapshotsConfig(every=2, keep_last=2, keep_every=every)
    committer = SnapshotCommitter(config, run, pytest.fail, on_committed=told.append)
    for step in range(12):
        if committer.begin_if_due(step, stages=1):
            committer.add_part(write_part(run, step + 1))
    assert step_numbers(run) == kept
    assert (committer.committed, told) == (12, [2, 4, 6, 8, 10, 12])


def test_a_snapshot_counts_when_every_stage_has_written_its_part(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    said: list[str] = []
    committer = SnapshotCommitter(SnapshotsConfig(every=2), run, said.append)
    assert committer.begin_if_due(1, stages=2)
    committer.add_part(write_part(run, 2, stage=2))
    assert not (run.snapshot(2) / MANIFEST).exists()
    committer.drop_parts_of([2])  # started over: what it wrote is written again
    committer.add_part(write_part(run, 2, stage=1))
    assert committer.committed == 0
    committer.add_part(write_part(run, 2, stage=2))
    assert committer.committed == 2
    assert committer.begin_if_due(3, stages=2)
    committer.add_part(write_part(run, 4, stage=1))
    committer.add_part(SnapshotPart(2, 4, None, "the disk is full"))
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
    taken: list[SnapshotPart] = []
    writer = SnapshotWriter(run, taken.append)
    writer.take(Stage(TINY, 1, 2, torch.device("cpu")), 2)
    assert reached.wait(60)
    assert list(tmp_path.rglob("*.tmp"))
    writer.abandon()
    assert not list(tmp_path.rglob("*.tmp"))
    go_on.set()


def test_a_snapshot_is_written_when_its_copies_are_there_and_nobody_else_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU copies while the stage goes on: the copies have their content when the thread that writes has waited."""
    arrived, asked = threading.Event(), threading.Event()

    def late_copies(
        tensors: dict[str, torch.Tensor],
    ) -> tuple[dict[str, torch.Tensor], Callable[[], None]]:
        content = {name: tensor.clone() for name, tensor in tensors.items()}
        copies = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}

        def there() -> None:
            asked.set()
            assert arrived.wait(LIMIT)
            for name, copy in copies.items():
                copy.copy_(content[name])

        return copies, there

    monkeypatch.setattr(writing, "host_copies", late_copies)
    stage, run, taken = Stage(TINY, 1, 4), RunDir(tmp_path), list[SnapshotPart]()
    before = {name: tensor.clone() for name, tensor in stage.state_dict().items()}
    with SnapshotWriter(run, taken.append) as writer:
        writer.take(stage, 2)
        assert asked.wait(LIMIT)
        with torch.no_grad():
            for parameter in stage.parameters():  # the next step
                parameter.add_(1.0)
        arrived.set()
    assert [part.problem for part in taken] == [None]
    written = load_file(run.snapshot(2) / "stage_1.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in before.items())
