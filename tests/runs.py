"""Real runs for tests: the command line in a process of its own, on a network that trains in milliseconds."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.session_server import Peer, SessionServer
from tests.waiting import wait_until
from workers.run.environment import process_environment

ROOT = Path(__file__).resolve().parents[1]
TINY = """
seed: 1
train: {epochs: 4, max_steps: 6}
data: {batch_size: 64, image_size: 16, mean: [0.286, 0.286, 0.286], std: [0.353, 0.353, 0.353]}
model: {backbone: resnet18, width: 8, stem: strided, zero_init_residual: false}
head: {width: 32, projector: [32, 32]}
optimizer: {warmup_epochs: 1}
evaluation: {linear_probe: false}
"""
LIMIT = 240
"""Seconds until a run counts as hung; one of six tiny steps takes about five on two idle cores."""
ENDLESS = "train={epochs: 1000000, max_steps: 100000000}"
"""For a run that only something else ends."""


class Process:
    """A command in a process of its own, whose output can be read while it runs; the part of `Popen` that tests need.

    Args:
        arguments: of a program; if `forked`, of `onward`, or `python -m MODULE` and its own.
        environment: beside ours.
        forked: from a process that has imported everything, which saves seconds; see tests/fork_server.py.
    """

    def __init__(
        self, arguments: Sequence[str], environment: dict[str, str] | None = None, forked: bool = False
    ) -> None:
        self.args = arguments
        given = {**os.environ, **(environment or {})}
        # Not pipes: they are never full, and reading them takes nothing away.
        self._out, self._err = (tempfile.TemporaryFile("w+b") for _ in "oe")  # noqa: SIM115
        self._asking = threading.RLock()
        self._process: Any
        sys.audit("tests.process", arguments)  # a forked one is started by the session's server, which nobody sees
        if forked:
            streams = self._out.fileno(), self._err.fileno()
            self._process = session_server().command(arguments, given, *streams)
        else:
            self._process = subprocess.Popen(arguments, cwd=ROOT, env=given, stdout=self._out, stderr=self._err)
        self.pid: int = self._process.pid

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return os.pread(self._out.fileno(), 1 << 26, 0).decode()

    @property
    def err(self) -> str:
        """What it has printed so far on its standard error."""
        return os.pread(self._err.fileno(), 1 << 26, 0).decode()

    @property
    def returncode(self) -> int | None:
        """Once it is known to have ended."""
        code: int | None = self._process.returncode
        return code

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        with self._asking:
            code: int | None = self._process.poll()
        return code

    def send_signal(self, number: int) -> None:
        """If it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = LIMIT) -> int:
        """The exit code, once it has ended."""
        wait_until(lambda: self.poll() is not None, lambda: f"the end of {self.args}: {self.out} {self.err}", timeout)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float = LIMIT) -> tuple[str, str]:
        """All that it has printed, once it has ended."""
        self.wait(timeout)
        return self.out, self.err

    def wait_for(self, text: str) -> None:
        """Until it has printed `text`."""
        wait_until(lambda: text in self.out or self.poll() is not None, lambda: f"{text!r} in {self.out!r}", LIMIT)
        assert text in self.out, (self.out, self.err)


@contextlib.contextmanager
def ended_afterwards(started: list[Process]) -> Iterator[list[Process]]:
    """Kill what is left of these at the end of the block."""
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait(LIMIT)


@functools.cache
def session_server() -> SessionServer:
    """Started with the first command of the session, ended with it."""
    log = Path(tempfile.mkstemp(prefix="onward-tests-")[1])
    folders = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    server = SessionServer({**process_environment(1), "PYTHONPATH": folders}, log)
    log.unlink()
    atexit.register(server.close)
    return server


def start_peer(module: str) -> Peer:
    """A module of the tests in a forked process that reads requests and writes answers."""
    sys.audit("tests.process", module)
    return session_server().peer(module)


def command(folder: Path, *overrides: str, config: Path | None = None) -> list[str]:
    """`onward train`, on the tiny network unless another configuration is given; writes to `folder/run`."""
    if config is None:
        config = folder / "tiny.yaml"
        config.write_text(TINY)
    return [sys.executable, "-m", "launch.cli", "train", str(config), f"run_dir={folder / 'run'}", *overrides]


def start(
    folder: Path,
    *overrides: str,
    environment: dict[str, str] | None = None,
    config: Path | None = None,
    forked: bool = True,
) -> Process:
    arguments = command(folder, *overrides, config=config)
    return Process(arguments, environment, forked)


def train(
    folder: Path,
    *overrides: str,
    environment: dict[str, str] | None = None,
    config: Path | None = None,
    forked: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run to the end; killed after `LIMIT` seconds."""
    process = start(folder, *overrides, environment=environment, config=config, forked=forked)
    try:
        out, err = process.communicate()
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


def onward(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Any other command to its end, with its exit code."""
    process = Process([str(argument) for argument in arguments], forked=True)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


def report(folder: Path) -> dict[str, Any]:
    """What a finished run wrote about itself."""
    value: dict[str, Any] = json.loads((folder / "run" / "report.json").read_text())
    return value


def time_lost(folder: Path) -> set[str]:
    """To what a finished run has lost time; that and the time of new steps are all of it."""
    goodput = report(folder)["goodput"]
    lost = goodput["lost"]
    assert math.isclose(sum(lost.values()) + goodput["seconds"], goodput["run_seconds"], abs_tol=1e-3), goodput
    assert 0 < goodput["ratio"] == goodput["seconds"] / goodput["run_seconds"] < 1
    return {cause for cause, seconds in lost.items() if seconds > 0}


def digests(folder: Path) -> dict[int, dict[int, dict[str, str]]]:
    """What a run has recorded of its bits (`digests.every`), by step and stage."""
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    found = {n["step"]: {s["stage"]: s["digests"] for s in n["stages"] if "digests" in s} for n in lines}
    return {step: stages for step, stages in found.items() if stages}


def bits(folder: Path) -> tuple[str, dict[int, dict[int, dict[str, str]]]]:
    """The digest of the trained weights, and those of the steps that were recorded."""
    return str(report(folder)["final_digest"]), digests(folder)


def wait_for_steps(folder: Path, steps: int, process: Process) -> None:
    """Until `steps` lines are in `metrics.jsonl`."""
    path = folder / "run" / "metrics.jsonl"
    wait_for_file(folder, path, process, lambda text: text.count("\n") >= steps)


def wait_for_snapshot(folder: Path, steps: int, process: Process) -> None:
    """Until the snapshot after `steps` steps is complete."""
    wait_for_file(folder, folder / "run" / "snapshots" / f"step_{steps}" / "manifest.json", process)


def wait_for_file(folder: Path, path: Path, process: Process, enough: Callable[[str], bool] | None = None) -> None:
    """Until a run in `folder` has written a file with `enough` in it."""

    def there() -> bool:
        ended = process.poll() is not None
        if path.exists() and (enough is None or enough(path.read_text())):
            return True
        assert not ended, (f"the run in {folder} ended before", path, process.communicate())
        return False

    wait_until(there, path, LIMIT)


def processes_mentioning(text: str) -> list[str]:
    """Command lines of live processes that mention `text` or were started with it in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                data = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if text.encode() in data:
                found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found
