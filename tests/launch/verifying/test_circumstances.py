"""What may give other bits by right, of two sides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from launch.prepare.config_record import SHOWN
from launch.prepare.provenance import read_starts, record_start
from launch.prepare.run_dir import write_config
from launch.verifying.circumstances import (
    Circumstances,
    edited,
    given_otherwise,
    other_circumstances,
    other_keys,
    other_version,
)  # fmt: skip
from pipeline.config import Config
from pipeline.config.run import StageOverrides
from pipeline.errors import UserError
from workers.run.files import RunDir
from workers.snapshots.manifest import MANIFEST, Manifest, StageFile


def test_a_start_on_this_machine_has_nothing_that_differs(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    record_start(Config(), run, devices=["cpu", "cpu"])
    found = Circumstances.of(run, 3)
    assert found.devices == ("cpu",)
    assert found.versions["torch"]
    assert other_circumstances(found, found) == []


def test_it_is_the_start_that_trained_the_step(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    record_start(Config(), run, 0, devices=["cpu"])
    record_start(Config(), run, 8, devices=["cuda:0", "cuda:1"])
    assert Circumstances.of(run, 7).devices == ("cpu",)
    assert Circumstances.of(run, 8).devices == ("cuda",)


def test_what_differs_is_named(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    record_start(Config(), run, devices=["cpu"])
    there = replace(Circumstances.of(run, 0), modules={"mine": "1"})
    here = replace(
        there,
        versions={**there.versions, "torch": "9.9"},
        processor="another",
        gpus=("A GPU",),
        devices=("cuda",),
        modules={"mine": "2"},
    )
    found = "; ".join(other_circumstances(there, here))
    assert f"torch {there.versions['torch']} there, 9.9 here" in found
    assert "devices cpu there, cuda here" in found
    assert f"processor {there.processor or 'not recorded'} there, another here" in found
    assert "GPUs not recorded there, A GPU here" in found
    assert "another content of mine (RUN/modules has the one there)" in found


def test_a_run_without_a_record_or_with_a_strange_one_says_so(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    nothing = Circumstances.of(run, 0)
    assert other_circumstances(nothing, nothing) == [
        "there is no record of where the run was trained (provenance.json)"
    ]
    run.provenance.write_text(json.dumps({"starts": [{"step": 0, "versions": 3, "modules": "x", "devices": {}}, 7]}))
    assert Circumstances.of(run, 0) == nothing


def test_keys_that_change_no_bit_do_not_count() -> None:
    here = {"runtime": "serial", "snapshots": {"every": 5}, "digests": {"every": 2}, "link": {"kind": "p2p"}}
    assert other_keys(Config(), Config.model_validate(here)) == []
    changed = Config.model_validate({**here, "threads": 2, "link": {"codec": "int8"}})
    assert other_keys(Config(), changed) == [
        "threads is 1 there, 2 here",
        "link.codec is 'none' there, 'int8' here",
    ]
    assert other_keys(Config(), Config.model_validate({"stages": {1: {"replicas": 2}}})) == [
        "stages.1.replicas is null there, 2 here"
    ]


def test_faults_that_flip_no_bit_do_not_count() -> None:
    kill, flip = ({"faults": [{"kind": kind, "stage": 1, "step": 3}]} for kind in ("kill", "flip_weight"))
    killed, flipped = (Config.model_validate_json(json.dumps(values)) for values in (kill, flip))
    assert other_keys(killed, Config()) == []
    assert other_keys(killed, flipped) == other_keys(Config(), flipped) != []


def test_a_snapshot_of_a_version_with_other_bits_is_named(tmp_path: Path) -> None:
    half = Config.model_validate({"precision": {"dtype": "bf16"}})
    (folder := tmp_path / "step_4").mkdir()
    manifest = Manifest(4, {1: StageFile("stage_1.safetensors", 1, "0" * 64, {})}, bits=1)
    (folder / MANIFEST).write_text(json.dumps(manifest.to_json()))
    (sentence,) = other_version(half, [tmp_path / "step_0", folder])
    assert sentence.startswith("the snapshot is of an earlier version (bits 1, here ")
    assert other_version(Config(), [folder]) == other_version(half, [tmp_path / "final"]) == []


def started(run: RunDir, config: Config, step: int = 0) -> None:
    """As a start does: the configuration, and the record of it."""
    write_config(run, config)
    record_start(config, run, step)


def test_an_edit_of_the_configuration_is_seen(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    started(run, Config(seed=3))
    assert edited(run) == ""
    text = run.config.read_text()
    run.config.write_text("# mine\n" + text.replace("every: null", "every: 7"))
    assert edited(run) == "", "neither a remark nor a key that changes no bit"
    run.config.write_text(text.replace("seed: 3", "seed: 4").replace("lambd: 0.0051", "lambd: 0.006"))
    end = "was edited after the run was started: seed was 3, is 4; objective.lambd was 0.0051, is 0.006"
    assert edited(run) == f"{run.config} {end}"
    run.config.write_text(text.replace("stages: {}", "stages: {1: {optimizer: {lr: 0.3}}}"))
    assert edited(run).endswith("started: stages.1.optimizer.lr was null, is 0.3")
    run.config.write_text("seed: 3\n")
    missing = sum(value is not None for value in read_starts(run)[0]["config"].values()) - 1
    assert edited(run).endswith(f"; {missing - SHOWN} more keys")


def test_nothing_is_said_of_a_run_that_recorded_nothing_and_no_secret_is_recorded(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_config(run, Config())
    assert edited(run) == ""
    secret = {"trackers": [{"kind": "mine:T", "options": {"password": "hunter2"}}]}
    started(run, Config.model_validate_json(json.dumps(secret)))
    assert "hunter2" not in run.provenance.read_text()
    run.config.write_text("[")
    with pytest.raises(UserError, match="cannot be read"):
        edited(run)


def test_a_start_that_went_on_with_other_values_is_named_for_the_steps_before(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    started(run, Config())
    started(run, Config(), 4)
    started(run, Config(stages={1: StageOverrides(replicas=2)}), 8)
    assert [("config" in start) for start in read_starts(run)] == [True, False, True]
    assert given_otherwise(run, 5) == ["when they were trained, stages.1.replicas was null, is 2 since"]
    assert given_otherwise(run, 8) == []
    assert edited(run) == "", "the run wrote that itself"
