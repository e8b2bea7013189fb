"""What is decided, refused and told before a run starts, and after one ran out of memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch.plan import fitting, gpus
from launch.plan.bounds import upper_bound
from launch.plan.fitting import fit
from launch.prepare.placement import place
from pipeline.errors import UserError
from tests.launch.plan.test_process_memory import CASES, WIDE, account
from tests.pipeline.small import small_config

SMALL = small_config(memory={"recompute": "auto"})
TOO_LARGE = ("model.cuts=[layer1]", "stages.1.head={width: 1048576, projector: [8]}", "data.batch_size=512")
"""A map of 392 GiB for each view, which the kernel refuses where there is not as much."""


def test_a_small_run_is_not_accounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "_in_child", lambda work: pytest.fail("an account was made"))
    decided, notes = fit(SMALL, place(SMALL, 0), False)
    assert [decided.stage(index).memory.recompute for index in range(1, 5)] == ["none"] * 4
    assert decided.memory.recompute == "none"
    assert not notes


def test_an_account_that_cannot_be_made_stops_only_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(work: Callable[[], Any]) -> Any:
        raise fitting.AccountError("it takes too long")

    monkeypatch.setattr(fitting, "_in_child", fails)
    monkeypatch.setattr(gpus, "available_bytes", lambda: 2**20)
    with pytest.raises(UserError, match=r"recompute=auto: it takes too long. Give none, units or views"):
        fit(SMALL, place(SMALL, 0), False)
    given = small_config()
    assert fit(given, place(given, 0), False) == (given, ["not known whether it fits: it takes too long"])


@pytest.mark.processes
@pytest.mark.parametrize("case", ["noise", "one loss"])
def test_the_bound_is_above_the_account(case: str) -> None:
    config = small_config(**{**WIDE, **CASES[case]})
    stages = [1, 2, 3, 4] if config.in_one_process else [2]
    assert (upper_bound(config, stages) or 0) > 1.5 * account(config, stages)[0]


@pytest.mark.slow
@pytest.mark.processes
def test_what_is_open_is_decided_by_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what does not fit is refused with what would do, unless it is forced."""
    config = small_config(
        **WIDE, runtime="serial", noise={"kind": "all"}, memory={"recompute": "auto"}, stages={2: {"device": "cpu"}}
    )
    placements = place(config, 0)
    lavish = config.model_copy(update={"memory": config.memory.model_copy(update={"recompute": "none"})})
    monkeypatch.setattr(gpus, "available_bytes", lambda: 2**20)
    _, (full,) = fitting.planned(lavish, placements, {"cpu": 2**20})
    monkeypatch.setattr(gpus, "available_bytes", lambda: full.needs - 1)
    decided, notes = fit(config, placements, False)
    assert "units" in {decided.stage(index).memory.recompute for index in range(1, 5)}
    assert re.match("memory.recompute=auto: .*units", notes[0])
    with pytest.raises(
        UserError, match=r"need .*GiB .*tensors.*Give .*memory.recompute=units.*--force starts it"
    ) as refused:
        fit(lavish, placements, False)
    assert "data.batch_size=" in str(refused.value)
    assert fit(lavish, placements, False, force=True) == (lavish, [])
    _, (fits,) = fitting.planned(lavish, placements, {"cpu": full.needs})
    assert replace(fits, has=0) == replace(full, has=0)
    assert fits.fits


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.processes
def test_a_run_that_cannot_fit_is_refused_and_a_forced_one_ends_in_one_line(
    repository: Path, onward_process: Callable[..., Any], tmp_path: Path
) -> None:
    command = ("train", "configs/quickstart.yaml", *TOO_LARGE, f"run_dir={tmp_path / 'run'}")
    refused = onward_process(*command, cwd=repository, timeout=600)
    assert refused.code == 2
    assert re.search(r"error: .*GiB of cpu, which has .*Give .*head.chunk=\d+.*--force starts it", refused.err)
    assert not (tmp_path / "run" / "config.yaml").exists()
    ended = onward_process(*command, "--force", "-q", cwd=repository, timeout=600)
    assert ended.code == 1
    (line,) = ended.err.splitlines()
    assert re.match(
        r"error: stage 1 failed at step 0: memory ran out: it had [\d.]+ [MG]iB and asked for [\d.]+ GiB more. "
        r"By the account stage 1 and stage 2 need [\d.]+ GiB of cpu, which has .*Give .*head.chunk=",
        line,
    )
