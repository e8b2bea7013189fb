"""A run goes on where nobody can be told about it: a full disk, a closed pipe, no standard output at all."""

from __future__ import annotations

import io
import logging
import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.marks import slow
from tests.recovery import faults, pause
from tests.runs import ENDLESS, LIMIT, ROOT, command, report, session_server, wait_for_steps
from workers.observing.terminal.safe_stream import SafeStream


class Full(io.StringIO):
    """A disk that is full for a while."""

    full = True

    def write(self, text: str, /) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)

    def flush(self) -> None:
        self.write("")


def test_what_cannot_be_written_is_dropped_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    disk = Full()
    outlet = SafeStream(disk, "a disk")  # type: ignore[arg-type]
    print("lost", file=outlet, flush=True)
    print("lost", file=outlet, flush=True)
    disk.full = False
    print("kept", file=outlet, flush=True)
    assert disk.getvalue() == "kept\n"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == "not all that is said can be written to a disk (No space left on device)"


def test_it_is_what_it_stands_for(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w", encoding="latin-1", errors="replace") as file:
        outlet = SafeStream(file, "a file")
        assert (outlet.encoding, outlet.errors, outlet.isatty()) == ("latin-1", "replace", False)
        assert outlet.fileno() == file.fileno()
        assert outlet.buffer is file.buffer


def to_a_full_disk(run: list[str], errors: int) -> int:
    with Path("/dev/full").open("wb") as full:
        return session_server().command(run, dict(os.environ), full.fileno(), errors).wait(LIMIT)


def to_one_who_leaves(run: list[str], errors: int) -> int:
    with subprocess.Popen(["head", "-n", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as head:
        assert head.stdin
        assert head.stdout
        process = session_server().command(run, dict(os.environ), head.stdin.fileno(), errors)
        head.stdin.close()
        code = process.wait(LIMIT)
        assert len(head.stdout.read().splitlines()) == 1
        return code


def to_nobody(run: list[str], errors: int) -> int:
    return subprocess.run(["bash", "-c", f"{shlex.join(run)} >&-"], cwd=ROOT, stderr=errors, timeout=LIMIT).returncode


OUTPUTS = {"full": to_a_full_disk, "left": to_one_who_leaves, "closed": to_nobody}


@pytest.mark.processes
@pytest.mark.parametrize(
    ("runtime", "output", "told"),
    [
        ("pipelined", "full", "No space left on device"),
        ("serial", "left", ""),
        slow("pipelined", "closed", ""),
    ],
)
def test_a_run_trains_to_its_end(tmp_path: Path, runtime: str, output: str, told: str) -> None:
    run = command(tmp_path, "-v", f"runtime={runtime}", "trace=true")
    with (tmp_path / "errors").open("w") as errors:
        assert OUTPUTS[output](run, errors.fileno()) == 0, (tmp_path / "errors").read_text()
    error = (tmp_path / "errors").read_text()
    assert report(tmp_path)["images"] == 384
    assert "Traceback" not in error
    assert told in error
    assert len(error.splitlines()) <= 1


@pytest.mark.processes
@pytest.mark.parametrize("nohup", [False, slow(True)])
def test_a_terminal_that_goes_stops_a_run_in_order_unless_it_is_told_not_to(tmp_path: Path, nohup: bool) -> None:
    run = command(tmp_path, faults(pause(tmp_path / "go", 1, 3)) if nohup else ENDLESS)
    reader, writer = os.pipe()
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process: Any = (
            subprocess.Popen(run, cwd=ROOT, stdout=writer, stderr=writer)
            if nohup
            else session_server().command(run, dict(os.environ), writer, writer)
        )
    finally:
        signal.signal(signal.SIGHUP, previous)
    os.close(writer)
    wait_for_steps(tmp_path, 2, process)
    os.close(reader)
    os.kill(process.pid, signal.SIGHUP)
    (tmp_path / "go").touch()
    assert process.wait(LIMIT) == (0 if nohup else 130)
    failure = tmp_path / "run" / "failure.json"
    assert failure.exists() != nohup
    assert nohup or "goes on from the snapshot after" in failure.read_text()
