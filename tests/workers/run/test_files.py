"""Half-written files: none is left by a process that ends on purpose, whatever its other threads are doing."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import LIMIT
from workers.run import files
from workers.run.files import RunDir, exit_at_once, remove_temporaries, temporary_of, write_parts


def test_a_thread_that_writes_leaves_nothing_when_its_process_exits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that a thread began after the others were removed stayed in the run directory."""
    run, path = RunDir(tmp_path), tmp_path / "snapshots" / "step_4" / "stage_4.safetensors"
    path.parent.mkdir(parents=True)
    begun, go_on = threading.Event(), threading.Event()
    problems: list[OSError] = []

    def parts() -> Iterator[bytes]:
        yield b"half"
        begun.set()
        go_on.wait(LIMIT)

    def write() -> None:
        try:
            write_parts(path, parts(), tmp_path)
        except OSError as error:
            problems.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    assert begun.wait(LIMIT)
    assert temporary_of(path).exists()
    ends: list[tuple[int, list[str], bool]] = []
    monkeypatch.setattr(
        os, "_exit", lambda code: ends.append((code, os.listdir(path.parent), files._creating.locked()))
    )
    exit_at_once(run, 3)
    assert ends == [(3, [], True)], "nobody may begin another"
    go_on.set()
    thread.join(LIMIT)
    write_parts(path, (b"another",), tmp_path)
    assert path.read_bytes() == b"another", "where the process has not ended, as in this test"
    assert [error.filename for error in problems] == [str(path)]


def test_those_of_a_process_that_was_killed_are_removed_and_others_go_on(tmp_path: Path) -> None:
    dead, own = tmp_path / f".a.{2**30}.tmp", tmp_path / f".b.{os.getpid()}.tmp"
    for path in (dead, own):
        path.touch()
    remove_temporaries(RunDir(tmp_path), 2**30)
    assert (dead.exists(), own.exists()) == (False, True)
    write_parts(tmp_path / "c", (b"whole",), tmp_path)
    assert (tmp_path / "c").read_bytes() == b"whole"
