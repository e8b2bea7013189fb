"""A run directory that somebody else could write to: what is wrong in it is named, and leads nowhere else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from launch.prepare.run_dir import read_config
from pipeline.errors import UserError
from tests.marks import slow
from tests.runs import report, train
from workers.run.files import RunDir
from workers.snapshots.manifest import MAX_BYTES

pytestmark = pytest.mark.processes

STEPS = ("train.max_steps=12",)
SERIAL = ("runtime=serial", "snapshots.every=1", "snapshots.keep_last=20")
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed, with a snapshot after each of its first 9 steps."""
    folder = tmp_path_factory.mktemp("stopped")
    result = train(folder, *STEPS, *SERIAL, "faults=[{kind: kill, stage: 1, step: 11}]")
    assert result.returncode == 1, result.stderr
    for late in (10, 11):  # may or may not have been complete
        shutil.rmtree(folder / "run" / "snapshots" / f"step_{late}", ignore_errors=True)
    return folder / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, *STEPS, "runtime=serial").returncode == 0
    return str(report(folder)["final_digest"])


def manifest_of(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text())


def written(folder: Path, manifest: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest))


def signed(folder: Path, data: bytes, stage: int = 2) -> None:
    """`data` as the file of a stage, its manifest in order: nothing but the file itself can give it away."""
    (folder / f"stage_{stage}.safetensors").write_bytes(data)
    manifest = manifest_of(folder)
    manifest["stages"][str(stage)] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    written(folder, manifest)


def with_counters(counters: Any) -> Damage:
    def damage(folder: Path) -> None:
        manifest = manifest_of(folder)
        manifest["stages"]["1"]["counters"] = counters
        written(folder, manifest)

    return damage


def doubled(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"format"', '"steps": 7, "format"', 1))


def linked(folder: Path) -> None:
    part = folder / "stage_1.safetensors"
    part.rename(folder.parent.parent.parent / "outside.safetensors")
    part.symlink_to(folder.parent.parent.parent / "outside.safetensors")


def linked_manifest(folder: Path) -> None:
    shutil.move(folder / "manifest.json", folder / "other.json")
    (folder / "manifest.json").symlink_to("other.json")


def piped(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")


def with_header(header: Any, size: int | None = None) -> Damage:
    text = json.dumps(header).encode()
    return lambda folder: signed(folder, (len(text) if size is None else size).to_bytes(8, "little") + text + bytes(64))


OVERLAP = {name: {"dtype": "F32", "shape": [8], "data_offsets": [at, at + 32]} for name, at in (("a", 0), ("b", 16))}
HOSTILE: list[tuple[Damage, str]] = [
    (lambda folder: (folder / "manifest.json").write_text("[" * 200_000), "no manifest"),
    (lambda folder: (folder / "manifest.json").write_bytes(b" " * (MAX_BYTES + 1)), "larger than"),
    (doubled, "occurs twice"),
    (with_counters({"skipped_in_a_row": float("inf")}), "finite number"),
    (with_counters({"skipped_in_a_row": 10**300}), "finite number"),
    (linked, "not an ordinary file"),
    (with_header({}, 2**63), "holds no tensors"),
    (with_header(OVERLAP), "holds no tensors"),
]
"""In place of the snapshots after 9, 8, ... 2 steps."""


def copied(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder / "run")
    return folder / "run"


def test_hostile_snapshots_are_passed_over_one_by_one(stopped: Path, whole: str, tmp_path: Path) -> None:
    run = copied(stopped, tmp_path)
    for number, (damage, _) in enumerate(HOSTILE):
        damage(run / "snapshots" / f"step_{9 - number}")
    result = train(tmp_path, *STEPS, *SERIAL)
    assert (result.returncode, result.stderr) == (0, "")
    notes = [line for line in result.stdout.splitlines() if "passed over" in line]
    for number, (note, (_, words)) in enumerate(zip(notes, HOSTILE, strict=True)):
        assert note.startswith(f"snapshot after {9 - number} steps passed over: ")
        assert words in note
    assert "going on from the snapshot after 1 steps" in result.stdout
    assert report(tmp_path)["final_digest"] == whole


@pytest.mark.parametrize("damage", [linked_manifest, piped], ids=["link", "pipe"])
def test_a_manifest_that_is_no_file_is_passed_over_at_once(damage: Damage, stopped: Path, tmp_path: Path) -> None:
    from launch.prepare.resume import find_resume_point

    run = copied(stopped, tmp_path)
    damage(run / "snapshots" / "step_9")
    found = find_resume_point(RunDir(run))
    assert found.steps == 8
    assert "not an ordinary file" in found.notes[0]


def other(change: Callable[[dict[str, Any]], None]) -> Damage:
    """The file of stage 2 with other tensors in it, in order otherwise."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / "stage_2.safetensors")
        change(tensors)
        signed(folder, save(tensors))

    return damage


def first(tensors: dict[str, Any]) -> str:
    return next(name for name in sorted(tensors) if name.startswith("block.") and tensors[name].ndim == 4)


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (other(lambda t: t.update({first(t): np.zeros((2, 2), np.float32)})), 2, "does not fit stage 2"),
        slow(other(lambda t: t.update({"more": np.zeros(2, np.float32)})), 2, "does not fit stage 2"),
        (other(lambda t: t.pop(first(t))), 2, "does not fit stage 2"),
        (other(lambda t: t.update({"optimizer.momentum_buffer.nobody": np.zeros(2)})), 2, "no parameter 'nobody'"),
        slow(with_counters({}), 2, "does not fit stage 1"),
        (with_counters({"skipped_in_a_row": "many", "scaler": None}), 2, "does not fit stage 1"),
        (other(lambda t: t[first(t)].fill(np.nan)), 0, ""),
    ],
    ids=["shape", "name", "missing", "owner", "no counters", "counter", "not a number"],
)
def test_a_snapshot_of_something_else_is_one_message(
    damage: Damage, code: int, message: str, stopped: Path, tmp_path: Path
) -> None:
    damage(copied(stopped, tmp_path) / "snapshots" / "step_9")
    result = train(tmp_path, *STEPS, *SERIAL)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == (1 if message else 0)
    assert "Traceback" not in result.stdout


def test_metrics_that_are_none_are_left_out(stopped: Path, whole: str, tmp_path: Path) -> None:
    run = copied(stopped, tmp_path)
    hostile = [
        b"[" * 200_000,
        b"\xff\xfe",
        b'{"step": Infinity}',
        b'{"step": "x"}',
        b"7",
        b'{"step": ' + b"1" * 5000 + b"}",
    ]
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"\n".join(hostile) + b"\n")
    (run / "report.json").write_text("[" * 200_000)
    result = train(tmp_path, *STEPS, *SERIAL)
    assert (result.returncode, result.stderr) == (0, "")
    assert report(tmp_path)["final_digest"] == whole
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(12))


@pytest.mark.parametrize("name", ["snapshots", "logs", "metrics.jsonl", "final", "snapshots/step_9"])
def test_nothing_in_a_run_leads_out_of_it(name: str, stopped: Path, tmp_path: Path) -> None:
    run = copied(stopped, tmp_path)
    outside = tmp_path / "outside"
    if (run / name).exists():
        (run / name).rename(outside)
    else:
        outside.mkdir()
    (run / name).symlink_to(outside)
    before = sorted(outside.rglob("*"))
    with pytest.raises(UserError, match=f"{name}' is a symbolic link: a run holds its own files only"):
        read_config(run)
    if name == "snapshots":  # one real run: it would delete what lies after the snapshot it goes on from
        assert train(tmp_path, *STEPS, *SERIAL).returncode == 2
    assert sorted(outside.rglob("*")) == before


def test_a_pipe_in_a_run_blocks_nobody(stopped: Path, tmp_path: Path) -> None:
    run = copied(stopped, tmp_path)
    os.mkfifo(run / "report.json")
    with pytest.raises(UserError, match=r"report\.json' is neither a file nor a folder"):
        read_config(run)
