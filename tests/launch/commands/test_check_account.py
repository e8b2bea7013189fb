"""`onward check` says what a run needs: beside its checks, alone, and for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch.commands import check
from launch.plan import child
from tests.runs import TINY, onward

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]
SMALL = ("data.batch_size=8", "head.projector=[8]", "model.cuts=[layer3]")
COLUMNS = 100


def said(*arguments: object) -> str:
    """What the command prints in a fork; tests/launch/test_cli.py has one in an interpreter of its own."""
    done = onward(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_without_the_data_or_a_gpu(repository: Path) -> None:
    printed = said("check", repository / "configs/paper_resnet50_imagenet.yaml", "--memory", *SMALL)
    assert re.search(r"^stage 1 +\d+\.\d+ [MG]iB .+ to \d+\.\d+ [MG]iB$", printed, re.MULTILINE)
    assert re.search(
        r"^stage 1 -> stage 2 +queue +none +\d+\.\d+ MiB +\d+\.\d+ MiB of shared memory$", printed, re.MULTILINE
    )
    assert "without the data set" in printed
    assert max(map(len, printed.splitlines())) <= COLUMNS


def test_gpus_that_are_not_here_are_asked_about(repository: Path) -> None:
    config, *small = repository / "configs/quickstart.yaml", *SMALL[:2], "model.cuts=[]"
    printed = said("check", config, "--memory", "--gpu", "l4", *small)
    needed = re.search(r"^fits: stage 1 needs (\d+\.\d+) GiB of cuda:0, which has 22.00 GiB$", printed, re.MULTILINE)
    assert needed
    parts = re.search(r"^  GiB: estimated (.*0.50 CUDA.*)$", printed, re.MULTILINE)
    assert parts
    assert abs(sum(float(part.split()[0]) for part in parts[1].split(", ")) - float(needed[1])) < 0.05
    assert max(map(len, printed.splitlines())) <= COLUMNS


def test_beside_the_checks_and_as_json(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    arguments = ("check", tmp_path / "tiny.yaml", "device=cpu", "snapshots.every=2", "model.cuts=[layer2]")
    comments = [line for line in said(*arguments).splitlines() if line[:1] == "#"]
    found = json.loads(said(*arguments, "--json"))
    assert found["config"]["snapshots"]["every"] == 2
    assert found["plan"]["images"] == 10_000
    first = found["account"]["groups"][0]["memory"]
    assert any(line.startswith("# stage 1  ") and f"{first['peak'] / 2**20:.1f} MiB" in line for line in comments)
    host = found["account"]["host"]
    assert host["high"] == sum(term["high"] for term in host["terms"]) > host["low"]
    assert any(line.startswith("# memory of this host: ") for line in comments)
    assert max(map(len, comments)) <= COLUMNS


def test_what_cannot_be_computed_is_said_and_the_rest_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onward: Callable[..., Any]
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.setattr(check, "AccountProcess", child.AccountProcess)  # the fixture has put another one there
    monkeypatch.setattr(child, "SECONDS", 0.0)
    printed = onward("check", tmp_path / "tiny.yaml").out
    assert "# note: what the run needs was not computed: it takes longer than 0 s. The rest was checked" in printed
    assert "# batches of 64" in printed
