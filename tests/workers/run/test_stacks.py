"""Stacks of all threads in a log: by a thread that asks, and by a signal where no thread can run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch._C import _distributed_c10d

from tests.waiting import wait_until
from workers.run.files import RunDir
from workers.run.signals import PARENT_GONE, STACKS, WAKE
from workers.run.stacks import MARK, StacksInLog, flight_record_of, write_stacks

HOLDS_THE_INTERPRETER = """
import ctypes, threading
from workers.run.stacks import write_stacks_on_signal
write_stacks_on_signal()
threading.Thread(target=threading.Event().wait, name="another", daemon=True).start()
def held_for_ever():
    print("held", flush=True)
    while True:  # a signal ends the sleep
        ctypes.PyDLL(None).sleep(3600)
held_for_ever()
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    run.logs.mkdir()
    return run


def record_is(monkeypatch: pytest.MonkeyPatch, record: bytes) -> None:
    monkeypatch.setattr(_distributed_c10d, "_dump_nccl_trace_json", lambda: record)


def test_a_thread_writes_those_of_all_and_nothing_of_nccl_where_there_is_none(
    run: RunDir, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not write_stacks(run, "stage_1")
    told = capfd.readouterr().err
    assert MARK.decode() in told
    assert "in test_a_thread_writes_those_of_all" in told
    assert not list(run.logs.iterdir())


def test_what_nccl_was_doing_is_kept_as_it_is(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    record_is(monkeypatch, b'{"entries": [{"state": "started"}]}')
    assert write_stacks(run, "stage_1")
    assert flight_record_of(run, "stage_1").read_bytes() == b'{"entries": [{"state": "started"}]}'


@pytest.mark.parametrize("record", [b"", b"\xff", b"[]", b'{"version": "3.0"}', b'{"entries": []}'])
def test_a_record_that_says_nothing_is_not_kept(run: RunDir, monkeypatch: pytest.MonkeyPatch, record: bytes) -> None:
    record_is(monkeypatch, record)
    assert not write_stacks(run, "stage_1")
    assert not list(run.logs.iterdir())


def test_without_the_private_function_the_stacks_are_written(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(_distributed_c10d, "_dump_nccl_trace_json")
    assert not write_stacks(run, "stage_1")
    assert MARK.decode() in capfd.readouterr().err


def test_a_record_that_cannot_be_written_is_only_missing(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    record_is(monkeypatch, b'{"entries": [1]}')
    run.logs.rmdir()
    run.logs.symlink_to("/tmp")
    assert not write_stacks(run, "stage_1")


@pytest.mark.processes
def test_a_call_that_holds_the_interpreter_does_not_hold_up_the_signal(run: RunDir) -> None:
    log = run.log("stage_1")
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS_THE_INTERPRETER], stdout=subprocess.PIPE, stderr=file, text=True
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        stacks = StacksInLog(log, run.path)
        process.send_signal(STACKS)
        wait_until(stacks.complete)
        told = log.read_text()
        assert "in held_for_ever" in told
        assert told.count(MARK.decode()) >= 2, "the other thread is there too"
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_a_log_is_complete_when_it_has_new_stacks_and_grows_no_more(run: RunDir) -> None:
    log = run.log("stage_1")
    log.write_bytes(b"of an earlier hang " + MARK)
    stacks = StacksInLog(log, run.path)
    assert not stacks.complete()
    with log.open("ab") as file:
        file.write(b"\nThread 0x1 ")
        file.flush()
        assert [stacks.complete(), stacks.complete()] == [False, False]
        file.write(MARK)
    assert [stacks.complete(), stacks.complete()] == [False, True]


def test_a_log_that_is_not_there_or_leads_elsewhere_has_none(run: RunDir, tmp_path: Path) -> None:
    stacks = StacksInLog(run.log("stage_1"), run.path)
    assert not stacks.complete()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(MARK)
    run.log("stage_1").symlink_to(elsewhere)
    assert [stacks.complete(), stacks.complete()] == [False, False]


def test_no_signal_has_two_meanings() -> None:
    assert len({STACKS, WAKE, PARENT_GONE}) == 3
