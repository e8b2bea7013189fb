"""A run goes on where nobody can be told about it: a full disk, a closed pipe, no standard output at all."""

from __future__ import annotations

import io
import logging
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.marks import slow
from tests.recovery import faults, pause
from tests.runs import ENDLESS, LIMIT, ROOT, command, report, wait_for_steps
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


@pytest.mark.processes
@pytest.mark.parametrize(
    ("runtime", "output", "told"),
    [
        ("pipelined", "> /dev/full", "No space left on device"),
        ("serial", "| head -n 1", ""),
        slow("pipelined", ">&-", ""),
    ],
)
def test_a_run_trains_to_its_end(tmp_path: Path, runtime: str, output: str, told: str) -> None:
    run = shlex.join(command(tmp_path, "-v", f"runtime={runtime}", "trace=true"))
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {run} {output}"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert result.returncode == 0, result.stderr
    assert report(tmp_path)["images"] == 384
    assert "Traceback" not in result.stderr
    assert told in result.stderr
    assert len(result.stderr.splitlines()) <= 1
    assert len(result.stdout.splitlines()) == output.count("head")


@pytest.mark.processes
@pytest.mark.parametrize("nohup", [False, slow(True)])
def test_a_terminal_that_goes_stops_a_run_in_order_unless_it_is_told_not_to(tmp_path: Path, nohup: bool) -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
    try:
        held = faults(pause(tmp_path / "go", 1, 3))
        run = command(tmp_path, held if nohup else ENDLESS)
        process = subprocess.Popen(run, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGHUP, previous)
    wait_for_steps(tmp_path, 2, process)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    (tmp_path / "go").touch()
    assert process.wait(LIMIT) == (0 if nohup else 130)
    failure = tmp_path / "run" / "failure.json"
    assert failure.exists() != nohup
    assert nohup or "goes on from the snapshot after" in failure.read_text()
