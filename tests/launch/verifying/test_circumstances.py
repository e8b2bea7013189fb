"""What may give other bits by right, of two sides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from launch.prepare.provenance import record_start
from launch.verifying.circumstances import Circumstances, other_circumstances, other_keys
from pipeline.config import Config
from workers.run.files import RunDir


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
