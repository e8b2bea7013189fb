"""A process that does not see the run directory: its parts are with the coordinator, to the bit what it would write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.config import Config
from pipeline.config.initial import InitFromConfig
from pipeline.stage.stage import Stage
from pipeline.stage.state import stage_tensors
from workers.control.transfer import TransferClient, TransferFailed
from workers.control.transfer_server import TransferServer
from workers.run.files import RunDir, write_json
from workers.run.tensor_files import save_tensors
from workers.snapshots.manifest import (
    MANIFEST,
    Manifest,
    StageFile,
    check_files,
    read_manifest,
    write_initial_manifest,
)
from workers.snapshots.parts import PartName
from workers.snapshots.remote_parts import PartStore, RemoteParts
from workers.snapshots.restore import restore
from workers.snapshots.weights import save_stage
from workers.snapshots.writer import SnapshotPart, SnapshotWriter

TINY = Config.model_validate(
    {"model": {"width": 8}, "head": {"width": 16, "projector": [16]}, "data": {"image_size": 32, "batch_size": 4}}
)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Of the coordinator."""
    (tmp_path / "run").mkdir()
    return RunDir(tmp_path / "run")


@pytest.fixture
def own(tmp_path: Path) -> RunDir:
    """Of the process."""
    (tmp_path / "own").mkdir()
    return RunDir(tmp_path / "own")


@pytest.fixture
def parts(run: RunDir, own: RunDir) -> Iterator[RemoteParts]:
    with (
        TransferServer(("127.0.0.1", 0), b"key", PartStore(run)) as server,
        TransferClient(server.address, b"key", "stage 2") as client,
    ):
        yield RemoteParts(client, own.path)


def stepped() -> Stage:
    """A stage that has made a step."""
    stage = Stage(TINY, 2, 4)
    for parameter in stage.parameters():
        parameter.grad = torch.ones_like(parameter)
    stage.engine.step()
    return stage


def snapshot(run: RunDir, own: RunDir, parts: RemoteParts, stage: Stage) -> None:
    """A complete snapshot after 3 steps, of one stage."""
    taken: list[SnapshotPart] = []
    with SnapshotWriter(own, taken.append, parts=parts) as writer:
        writer.take(stage, 3)
    assert taken[0].file is not None, taken
    write_json(run.snapshot(3) / MANIFEST, Manifest(3, {2: taken[0].file}).to_json())


def test_a_stage_goes_on_from_what_it_has_sent(run: RunDir, own: RunDir, parts: RemoteParts) -> None:
    stage, again = stepped(), Stage(TINY, 2, 4)
    snapshot(run, own, parts, stage)
    check_files(run.snapshot(3), read_manifest(run.snapshot(3)))
    restore(own, 3, [again, Stage(TINY, 1, 4)], parts)  # the other is not in it, and stays as it is
    before, after = stage_tensors(stage), stage_tensors(again)
    assert all(torch.equal(before[name], after[name]) for name in {**before, **after})
    assert list(own.path.iterdir()) == []


def test_a_stage_begins_with_weights_that_only_the_coordinator_has(
    run: RunDir, own: RunDir, parts: RemoteParts
) -> None:
    config = TINY.model_copy(update={"init_from": InitFromConfig(path="/somewhere/else")})
    given, stage = stepped().state_dict(), Stage(config, 2, 4)
    path = run.initial / "stage_2.safetensors"
    digest = save_tensors(path, {name: tensor for name, tensor in given.items() if name.startswith("block.")})
    write_initial_manifest(run, {2: StageFile(path.name, path.stat().st_size, digest, {})})
    restore(own, 0, [stage], parts)
    after, drawn = stage.state_dict(), Stage(TINY, 2, 4).state_dict()
    assert all(torch.equal(after[n], (given if n.startswith("block.") else drawn)[n]) for n in given)
    assert list(own.path.iterdir()) == []


def test_the_trained_weights_are_the_same_bytes_as_in_a_shared_directory(
    run: RunDir, own: RunDir, parts: RemoteParts, tmp_path: Path
) -> None:
    stage, shared = stepped(), RunDir(tmp_path / "shared")
    shared.path.mkdir()
    save_stage(shared, stage)
    save_stage(own, stage, parts=parts)
    assert run.stage(2).read_bytes() == shared.stage(2).read_bytes()
    assert list(own.path.iterdir()) == []


def test_a_part_that_was_damaged_on_the_disk_is_not_restored(run: RunDir, own: RunDir, parts: RemoteParts) -> None:
    snapshot(run, own, parts, stepped())
    path = run.snapshot(3) / "stage_2.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(TransferFailed, match="the part of stage 2 of the snapshot after 3 steps is damaged"):
        restore(own, 3, [Stage(TINY, 2, 4)], parts)


def test_training_goes_on_when_a_part_cannot_be_sent(run: RunDir, own: RunDir, parts: RemoteParts) -> None:
    run.snapshots.write_text("not a folder")
    taken: list[SnapshotPart] = []
    with SnapshotWriter(own, taken.append, parts=parts) as writer:
        writer.take(stepped(), 3)
    assert taken[0].file is None
    assert "Not a directory" in str(taken[0].problem)


@pytest.mark.parametrize(
    "what",
    [
        {"kind": "config", "stage": 1, "steps": 0},
        {"kind": "stage", "stage": "../1", "steps": 0},
        {"kind": "stage", "stage": 0, "steps": 0},
        {"kind": "snapshot", "stage": 1, "steps": -1},
        {"kind": "snapshot", "stage": 1, "steps": 10**18},
        {},
    ],
)
def test_nothing_but_parts_can_be_named(run: RunDir, parts: RemoteParts, what: dict[str, object]) -> None:
    with pytest.raises(TransferFailed, match="a message without a valid"):
        parts._client.put(what, 1, lambda: [b"x"])
    assert list(run.path.iterdir()) == []


def test_a_complete_snapshot_is_not_written_to(run: RunDir, own: RunDir, parts: RemoteParts) -> None:
    stage = stepped()
    snapshot(run, own, parts, stage)
    before = (run.snapshot(3) / "stage_2.safetensors").read_bytes()
    with pytest.raises(TransferFailed, match="is complete already"):
        parts.save(PartName("snapshot", 2, 3), {"other": torch.ones(3)})
    assert (run.snapshot(3) / "stage_2.safetensors").read_bytes() == before
