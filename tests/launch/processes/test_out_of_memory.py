"""What is added to the record of a run whose stage has run out of memory."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.failure import read_failure, write_failure
from launch.processes import out_of_memory
from launch.processes.out_of_memory import add_account
from workers.control.failures import FailureReport, failure_report
from workers.run.files import RunDir

MEMORY = MemoryError("1 GiB")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were given, each of which is answered."""
    given: list[list[str]] = []

    def answer(command: list[str], **settings: Any) -> Any:
        given.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="By the account\nit needs 3 GiB.\n")

    monkeypatch.setattr(out_of_memory.subprocess, "run", answer)
    return given


def test_a_gpu_gets_it_too(tmp_path: Path, asked: list[list[str]]) -> None:
    run = RunDir(tmp_path)
    error = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 1 has a total capacity of 79.10 GiB"
    )
    write_failure(run, failure_report("stage 2", 4, error, "cuda:1"))
    add_account(run)
    message = (read_failure(run) or {})["message"]
    assert message.startswith("stage 2 failed at step 4: memory ran out: it had the 79.10 GiB of GPU 1 and asked for")
    assert message.endswith("2.50 GiB more. By the account it needs 3 GiB.")


@pytest.mark.parametrize("who", ["stage 2", "stage 2 replica 1", "stages 2-3"])
def test_the_account_is_added_once(who: str, tmp_path: Path, asked: list[list[str]]) -> None:
    run = RunDir(tmp_path)
    write_failure(run, failure_report(who, 4, MEMORY))
    add_account(run)
    failure = read_failure(run) or {}
    assert failure["message"] == f"{who} failed at step 4: memory ran out (1 GiB). By the account it needs 3 GiB."
    assert failure["exit_code"] == 1
    assert [command[-2:] for command in asked] == [[str(tmp_path), "2"]]


@pytest.mark.parametrize(
    "report",
    [failure_report("coordinator", 4, MEMORY), failure_report("stage 2", 4, ValueError("memory ran out")), None],
)
def test_any_other_failure_stays_as_it_is(report: FailureReport | None, tmp_path: Path, asked: list[Any]) -> None:
    run = RunDir(tmp_path)
    if report is not None:
        write_failure(run, report)
    before = read_failure(run)
    add_account(run)
    assert read_failure(run) == before
    assert not asked


def test_without_an_account_the_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(command: list[str], **settings: Any) -> Any:
        raise subprocess.TimeoutExpired(command, 1.0)

    write_failure(RunDir(tmp_path), failure_report("stage 2", 4, MEMORY))
    monkeypatch.setattr(out_of_memory.subprocess, "run", late)
    add_account(RunDir(tmp_path))
    assert (read_failure(RunDir(tmp_path)) or {})["message"] == "stage 2 failed at step 4: memory ran out (1 GiB)"
