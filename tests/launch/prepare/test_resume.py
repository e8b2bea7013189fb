"""Which snapshot a run goes on from, what is refused, and that no manifest is believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from launch.prepare.resume import earlier_run, find_resume_point, roll_back
from pipeline.config import AlarmsConfig, Config, MetricsConfig, TraceConfig, TrackerConfig
from pipeline.config.run import StageOverrides
from pipeline.errors import ConfigError, UserError
from pipeline.validation.loading import dump_config, parse_config
from workers.observing.observer import Event
from workers.run.files import RunDir
from workers.snapshots.manifest import MANIFEST, check_files, read_manifest

CONFIG = parse_config({"data": {"batch_size": 64}, "train": {"epochs": 20}, "snapshots": {"every": 4}})


def snapshot(run: Path, steps: int, stages: int = 2) -> dict[str, Any]:
    """A complete snapshot of made-up tensors; returns what its manifest holds."""
    folder = run / "snapshots" / f"step_{steps}"
    folder.mkdir(parents=True)
    parts = {}
    for index in range(1, stages + 1):
        data = save({"weight": np.full(100 + index, index, dtype=np.uint8)})
        (folder / f"stage_{index}.safetensors").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        parts[str(index)] = {
            "file": f"stage_{index}.safetensors", "bytes": len(data), "sha256": digest, "counters": {}
        }  # fmt: skip
    manifest = {"format": 1, "steps": steps, "stages": parts}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return manifest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.yaml").write_text(dump_config(CONFIG))
    (path / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in range(10)) + '{"step": 1')
    snapshot(path, 4)
    snapshot(path, 8)
    return path


def test_the_newest_snapshot_is_taken(run: Path) -> None:
    found = find_resume_point(RunDir(run))
    assert (found.steps, found.finished) == (8, False)
    assert found.notes == ("going on from the snapshot after 8 steps",)


def test_one_without_a_manifest_does_not_exist(run: Path) -> None:
    (run / "snapshots" / "step_12").mkdir()
    assert find_resume_point(RunDir(run)).notes == ("going on from the snapshot after 8 steps",)


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "no manifest"])
def test_a_damaged_one_is_passed_over_and_named(run: Path, damage: str) -> None:
    folder = run / "snapshots" / "step_8"
    part = folder / "stage_2.safetensors"
    if damage == "flipped":
        part.write_bytes(part.read_bytes()[:-1] + b"\0")
    elif damage == "cut":
        part.write_bytes(part.read_bytes()[:-1])
    elif damage == "missing":
        part.unlink()
    else:
        (folder / MANIFEST).write_text("{")
    found = find_resume_point(RunDir(run))
    assert found.steps == 4
    assert found.notes[0].startswith("snapshot after 8 steps passed over: '")
    assert ("manifest.json" if damage == "no manifest" else "stage_2.safetensors") in found.notes[0]


def test_nothing_good_starts_over(run: Path) -> None:
    for part in run.rglob("*.safetensors"):
        part.unlink()
    found = find_resume_point(RunDir(run))
    assert found.steps == 0
    assert found.notes[-1] == "no snapshot to go on from: starting over"


def test_what_lies_after_the_snapshot_goes(run: Path) -> None:
    (run / "snapshots" / "step_12").mkdir()
    (run / "failure.json").write_text("{}")
    (run / "final").mkdir()
    roll_back(CONFIG, RunDir(run), find_resume_point(RunDir(run)).steps)
    assert sorted(path.name for path in (run / "snapshots").iterdir()) == ["step_4", "step_8"]
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == list(range(8))
    assert not (run / "failure.json").exists()
    assert not (run / "final").exists()


def test_what_happened_is_kept_and_what_cannot_be_read_is_not(run: Path) -> None:
    event = Event(time=1.0, kind="alarm", name="collapse", stage=1, step=9, text="later than the snapshot")
    good = json.dumps(event.to_json()) + "\n"
    for damage in ("[" * 10**5 + "\n", "{}\n", "\0\n", '{"kind": "no'):
        (run / "events.jsonl").write_text(good + damage + good[: -1 if damage.endswith("\n") else 0])
        roll_back(CONFIG, RunDir(run), find_resume_point(RunDir(run)).steps)
        assert (run / "events.jsonl").read_text() == good * (2 if damage.endswith("\n") else 1)


@pytest.mark.parametrize(
    ("written", "dtype", "expected"),
    [
        (None, "bf16", "of an earlier version (bits 1, here 2), so the run goes on to other bits than that version"),
        (None, "fp32", None),
        (2, "bf16", None),
        (3, "fp32", "of a later version (bits 3, here 2)"),
    ],
)
def test_a_snapshot_of_other_bits_says_so(run: Path, written: int | None, dtype: str, expected: str | None) -> None:
    manifest = run / "snapshots" / "step_8" / MANIFEST
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**values, **({} if written is None else {"bits": written})}))
    config = changed(precision=CONFIG.precision.model_copy(update={"dtype": dtype}))
    (run / "config.yaml").write_text(dump_config(config))
    notes = find_resume_point(RunDir(run)).notes
    assert notes[0] == "going on from the snapshot after 8 steps"
    assert [expected in note for note in notes[1:]] == ([] if expected is None else [True])


def test_what_is_computed_again_may_change_unless_it_is_compiled(run: Path) -> None:
    again = {"memory": CONFIG.memory.model_copy(update={"recompute": "units"})}
    assert earlier_run(changed(**again), RunDir(run)) == CONFIG
    compiled = {"precision": CONFIG.precision.model_copy(update={"compile": True})}
    (run / "config.yaml").write_text(dump_config(changed(**compiled)))
    with pytest.raises(ConfigError, match=r"memory\.recompute is 'none' there, 'units' here"):
        earlier_run(changed(**again, **compiled), RunDir(run))


def changed(**values: Any) -> Config:
    return CONFIG.model_copy(update=values)


def test_how_it_is_computed_may_change(run: Path) -> None:
    link = CONFIG.link.model_copy(update={"kind": "rpc", "depth": 5})
    data = CONFIG.data.model_copy(update={"workers": 3})
    assert earlier_run(changed(runtime="serial", device="cpu", link=link, data=data), RunDir(run)) == CONFIG


def test_a_stage_may_get_replicas_though_nothing_of_it_was_set(run: Path) -> None:
    assert earlier_run(changed(stages={1: StageOverrides(replicas=2)}), RunDir(run)) == CONFIG
    with pytest.raises(ConfigError, match=r"another configuration: stages\.1\.frozen is false there, true here\. "):
        earlier_run(changed(stages={1: StageOverrides(frozen=True)}), RunDir(run))


def test_who_looks_may_change(run: Path) -> None:
    told = {"metrics": MetricsConfig(norms_every=1, page=False), "alarms": AlarmsConfig(enabled=False)}
    traced = {"trace": TraceConfig(enabled=True), "trackers": (TrackerConfig(kind="tensorboard"),)}
    assert earlier_run(changed(**told, **traced), RunDir(run)) == CONFIG


def test_what_decides_the_numbers_may_not(run: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"another configuration: seed is 0 there, 7 here; threads is 1 there, 2 here"
    ):
        earlier_run(changed(seed=7, threads=2), RunDir(run))


def test_a_run_that_has_ended_is_finished(run: Path) -> None:
    (run / "report.json").write_text('{"final_digest": "0"}')
    assert find_resume_point(RunDir(run)).finished


def good(run: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((run / "snapshots" / "step_8" / MANIFEST).read_text())
    return manifest


@pytest.mark.parametrize(
    "change",
    [
        {"stages": {"1": {"file": "../../../etc/passwd", "bytes": 1, "sha256": "0" * 64, "counters": {}}}},
        {"stages": {"1": {"file": "/etc/passwd", "bytes": 1, "sha256": "0" * 64, "counters": {}}}},
        {"stages": {"1": {"file": "stage_2.safetensors", "bytes": 1, "sha256": "0" * 64, "counters": {}}}},
        {"stages": {"one": {"file": "stage_1.safetensors", "bytes": 1, "sha256": "0" * 64, "counters": {}}}},
        {"stages": {}},
        {"steps": 4},
        {"steps": -1},
        {"format": 2},
        {"more": 1},
    ],
    ids=["above", "absolute", "another stage's", "no number", "empty", "another", "negative", "future", "unknown key"],
)
def test_a_hostile_manifest_is_refused(run: Path, change: dict[str, Any]) -> None:
    folder = run / "snapshots" / "step_8"
    (folder / MANIFEST).write_text(json.dumps({**good(run), **change}))
    with pytest.raises(UserError, match=r"manifest\.json'"):
        check_files(folder, read_manifest(folder))
    assert find_resume_point(RunDir(run)).steps == 4


def test_a_manifest_without_end_is_refused(run: Path) -> None:
    path = run / "snapshots" / "step_8" / MANIFEST
    path.write_bytes(b" " * (17 * 1024 * 1024))
    with pytest.raises(UserError, match="larger than"):
        read_manifest(path.parent)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["format", "steps", "stages", "file", "bytes", "sha256", "counters", "1"])


@pytest.mark.long
@given(value=st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON)), max_size=5))
def test_any_json_is_a_manifest_or_refused(value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "step_8"
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_text(json.dumps(value))
    with pytest.raises(UserError):
        check_files(folder, read_manifest(folder))


@given(data=st.binary(max_size=80))
def test_any_bytes_are_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "step_8"
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_bytes(data)
    with pytest.raises(UserError):
        read_manifest(folder)
