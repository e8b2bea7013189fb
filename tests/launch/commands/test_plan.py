"""`onward plan`: a plan that train accepts, a comparison, JSON, and what is refused before anything is computed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import onward as api
from launch.commands.plan_answers import Planned, WhatIf
from pipeline.validation.loading import load_config
from tests.runs import TINY, onward
from workers.topology.processes import training_processes

COLUMNS = 80


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A network of four blocks that is counted in seconds."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml"


def said(*arguments: object) -> str:
    done = onward("plan", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.processes
@pytest.mark.timeout(900)
def test_a_plan_is_written_and_is_what_is_shown_and_is_never_written_twice(tiny: Path) -> None:
    file = tiny.with_name("planned.yaml")
    given = (tiny, "device=cpu", "--gpus", "3", "--write", file)
    printed = said(*given)
    written = load_config(file)
    shown = yaml.safe_load(printed.split("\n\n")[1])
    assert len(training_processes(written)) <= 3
    assert all(written.model_dump(mode="json")[section] for section in shown)
    *others, last = printed.splitlines()
    assert last == f"onward train {file}"
    assert max(map(len, others)) <= COLUMNS
    before = file.read_bytes()
    again = onward("plan", *given)
    assert again.returncode == 2
    assert again.stderr == f"error: --write: '{file}' is there, and nothing is written over it. Name a new file\n"
    assert file.read_bytes() == before


@pytest.mark.processes
@pytest.mark.timeout(900)
def test_as_json_and_as_values_it_is_the_same_but_for_the_time_it_took(tiny: Path) -> None:
    document = json.loads(said(tiny, "device=cpu", "--gpus", "4", "--keep-cuts", "--json"))
    found = api.plan(tiny, gpus=4, keep_cuts=True, device="cpu")
    assert isinstance(found, Planned)
    for each in (document, found.document):
        each.pop("seconds")
        for setting in (each["plan"], each["now"]):
            for stage in setting["stages"]:
                stage.pop("has")  # what the machine has left
    assert json.loads(json.dumps(found.document, default=list)) is not None
    rate = found.found.plan.images_per_second
    assert rate in document["plan"].values()
    assert found.planned.model.cuts == load_config(tiny).model.cuts
    assert document["plan"]["stages"][0]["units"] == list(found.found.plan.stages[0].units)
    assert str(found).startswith("**resnet18 in 4 blocks")


@pytest.mark.processes
@pytest.mark.timeout(900)
def test_two_settings_are_compared_and_the_slower_stage_of_one_is_named(tiny: Path) -> None:
    found = api.plan(tiny, what_if={"stages.1.replicas": 2, "data.drop_last": True}, device="cpu")
    assert isinstance(found, WhatIf)
    given, changed = found.found.given, found.found.changed
    assert (given.devices, changed.devices) == (4, 5)
    assert changed.stages[0].seconds < given.stages[0].seconds
    assert changed.stages[1].seconds == given.stages[1].seconds
    printed = said(tiny, "device=cpu", "--what-if", "stages.1.replicas=2,data.drop_last=true")
    assert re.search(r"^│ devices +│ +4 │ +5 │$", printed, re.MULTILINE)
    assert max(map(len, printed.splitlines())) <= COLUMNS


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--gpus", "4", "--gpu", "abacus"), r"abacus"),
        (("--gpus", "4", "--gpu", "24GiB"), r"24GiB"),
    ],
)
def test_a_gpu_of_which_nobody_knows_how_fast_it_is_is_refused(
    tiny: Path, arguments: tuple[str, ...], expected: str
) -> None:
    done = onward("plan", tiny, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(rf"^error: .*{expected}.*h100", done.stderr)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "^--gpus: how many devices there are is not said"),
        (("--gpus", "0"), "^--gpus: got 0. Give a number from 1"),
        (("--gpus", "4", "--gpu", "h100", "--measure"), "^--measure: it times this machine"),
        (("--gpus", "4", "--stages", "none"), "^--stages: got 'none'"),
        (("--gpus", "4", "--stages", "99"), "99 stages.*Give 1 to 9 stages"),
        (("--gpus", "999"), r"128 of 999 GPUs can be used at most.*--gpus 128"),
        (("--gpus", "4", "mode=end_to_end"), "^mode: .*nothing to divide"),
        (("--gpus", "4", "runtime=serial"), "^runtime: .*nothing to divide"),
        (("--gpus", "4", "stages.2.frozen=true"), r"^stages\.2\.frozen: .*stages that all learn"),
        (("--gpus", "8", "--hosts", "2", "link.kind=queue"), r"^link\.kind: got 'queue'.*several hosts"),
        (("--what-if", "replicas"), "^--what-if: 'replicas' is not of the form"),
        (("--what-if", "stages.9.replicas=2"), r"^stages\.9: there is no stage 9"),
        (("--what-if", "stages.2.replicas=2", "--write", "file.yaml"), "^--write: it is for a plan"),
        (("--what-if", "stages.2.replicas=2", "--keep-cuts"), "^--keep-cuts: it is for a plan"),
        (("--gpus", "4", "data.batch_size=many"), r"^data\.batch_size: got 'many'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_started(
    tiny: Path, onward: Callable[..., Any], assert_refused: Callable[[Any, str], None], arguments: Any, expected: str
) -> None:
    assert_refused(onward("plan", tiny, *arguments), expected)


def test_a_comparison_needs_no_number_of_devices_and_refuses_what_the_run_would(
    tiny: Path, onward: Callable[..., Any], assert_refused: Callable[[Any, str], None]
) -> None:
    assert_refused(onward("plan", tiny, "--what-if", "stages.2.replicas=3"), r"^stages\.2\.replicas: 3 replicas cannot")
    assert_refused(onward("plan", tiny, "--what-if", "mode=sequential"), "^mode: got 'sequential'")
