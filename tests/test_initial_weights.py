"""Runs that begin with given weights: the same bits however they run, when they go on, and when the source is gone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from launch.pages.run_record import read_run
from launch.pages.tables import stage_table
from tests.pipeline.small import same
from tests.runs import onward, report, train

pytestmark = pytest.mark.processes
FROZEN = ("stages.1.frozen=true", "stages.3.frozen=true")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another seed."""
    folder = tmp_path_factory.mktemp("source")
    result = train(folder, "seed=4", "train.max_steps=2", "runtime=serial")
    assert result.returncode == 0, result.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def serial(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serial")
    result = train(folder, "runtime=serial", f"init_from={source}", *FROZEN)
    assert result.returncode == 0, result.stderr
    assert f"stages 1 to 4 begin with '{source}'" in result.stdout
    return folder


def test_a_frozen_stage_is_the_sources_and_says_so(source: Path, serial: Path) -> None:
    for index in range(1, 5):
        name = f"final/stage_{index}.safetensors"
        after, before = load_file(serial / "run" / name), load_file(source / name)
        blocks = [{n: t for n, t in each.items() if n.startswith("block.")} for each in (after, before)]
        assert same(*blocks) == (index in (1, 3))
    line = json.loads((serial / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert [stage.get("frozen") for stage in line["stages"]] == [True, None, True, None]
    assert [stage.get("loss") is None for stage in line["stages"]] == [True, False, True, False]
    record = read_run(serial / "run")
    assert ["frozen" in map(str, row) for row in stage_table(record).rows] == [True, False, True, False]
    rates = [np.isfinite(stage.values["learning_rate"]).any() for stage in record.series.stages.values()]
    assert rates == [False, True, False, True], "no curve of nothing"


def test_the_pipeline_and_a_run_that_goes_on_equal_the_serial_run(source: Path, serial: Path, tmp_path: Path) -> None:
    """It goes on for longer than was planned, after its source has gone."""
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    settings = (f"init_from={copy}", *FROZEN, "snapshots.every=2", "train.max_steps=4", "link.kind=p2p")
    result = train(tmp_path, *settings)
    assert result.returncode == 0, result.stderr
    again = train(tmp_path, *settings, "init_from.heads=false")
    assert again.returncode == 2
    assert "already holds a run with another configuration: init_from.heads is" in again.stderr
    shutil.rmtree(copy)
    result = onward("resume", tmp_path / "run", "train.max_steps=6")
    assert result.returncode == 0, result.stderr
    assert report(tmp_path)["final_digest"] == report(serial)["final_digest"]


def test_other_weights_are_another_run(serial: Path, source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    shutil.copy(source / "final" / "backbone.safetensors", other)
    shutil.copytree(serial / "run", tmp_path / "run")
    result = train(tmp_path, "runtime=serial", f"init_from={other}", *FROZEN)
    assert result.returncode == 2
    assert "already holds a run with another configuration: init_from.sha256 is" in result.stderr


def test_what_does_not_fit_is_a_table_and_leaves_no_run(source: Path, tmp_path: Path) -> None:
    result = train(tmp_path, "model.width=16", f"init_from={source}")
    assert result.returncode == 2
    *table, error = result.stderr.strip().splitlines()
    rows = [line.split(maxsplit=1) for line in table]
    assert ["bn1.bias", "[8] in the source, [16] in the network"] in rows
    assert re.match(r"error: init_from: \d+ tensors do not fit between ", error)
    assert not (tmp_path / "run").exists()


STANDING = "optimizer={kind: adamw, lr: 1.0e-30, weight_decay: 0.0, warmup_epochs: 1}"
"""Steps too small to change a number."""
ENGINES = {
    "torch": (),
    "sharded": ("engine.shard_optimizer=true",),
    "zero-0": ("engine={kind: deepspeed, zero_stage: 0}",),
    "zero-2": ("engine={kind: deepspeed, zero_stage: 2}",),
    "bf16": ("engine.kind=deepspeed", "precision.dtype=bf16"),
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_every_replica_begins_with_the_weights(engine: str, source: Path, tmp_path: Path) -> None:
    """The loss is that of the embeddings of all replicas, so one with other weights would show in it."""
    lines = []
    for name, settings in {"one": ("runtime=serial",), "two": ("replicas=2", *ENGINES[engine])}.items():
        folder = tmp_path / name
        folder.mkdir()
        result = train(folder, f"init_from={source}", "data.drop_last=true", "train.max_steps=1", STANDING, *settings)
        assert result.returncode == 0, result.stderr
        lines.append(json.loads((folder / "run" / "metrics.jsonl").read_text()))
    for index in range(1, 5):
        name = f"final/stage_{index}.safetensors"
        begun, given = load_file(tmp_path / "two" / "run" / name), load_file(source / name)
        weights = [tensor for tensor in given if tensor.startswith(("block.", "head.")) and "running" not in tensor]
        for weight in weights:
            assert weight.endswith("num_batches_tracked") or begun[weight].equal(given[weight]), weight
    wanted, found = ([stage["loss"] for stage in line["stages"]] for line in lines)
    if engine != "bf16":  # which rounds the weights that it computes with
        assert found == pytest.approx(wanted, rel=1e-3)
