"""Runs that are disturbed on purpose: who their processes are, how they end, and that nothing of them is left."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.runs import ROOT, command, processes_mentioning, report, start, train, wait_for_steps

STEPS = ("train.max_steps=12", "snapshots.every=4", "metrics.enabled=false")
END_SECONDS = 40
"""For a run that cannot go on to end; generous for a busy machine, it takes about three."""
LEAVE_SECONDS = 15
"""For processes that nobody waits for any more to notice it."""
SHARED_MEMORY = Path("/dev/shm")


def fault(kind: str, stage: int, step: int, **more: float) -> str:
    """One entry of `faults`."""
    extra = "".join(f", {key}: {value}" for key, value in more.items())
    return f"{{kind: {kind}, stage: {stage}, step: {step}{extra}}}"


def faults(*entries: str) -> str:
    """An override of the command line."""
    return f"faults=[{', '.join(entries)}]"


@dataclass(frozen=True)
class Trial:
    """One run directory and the runs in it; their private folders lie in `private`, and nobody else's do."""

    folder: Path
    private: Path
    shared: frozenset[str]

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        return start(self.folder, *STEPS, *overrides, environment=self.environment)

    def train(self, *overrides: str) -> subprocess.CompletedProcess[str]:
        return train(self.folder, *STEPS, *overrides, environment=self.environment)

    def launch(self, launcher: Sequence[str], *overrides: str) -> subprocess.Popen[str]:
        """The command line, started by another program."""
        return subprocess.Popen(
            [*launcher, *command(self.folder, *STEPS, *overrides)],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        return {"TMPDIR": str(self.private)}

    @property
    def digest(self) -> str:
        return str(report(self.folder)["final_digest"])

    def pid(self, name: str) -> int:
        """The newest process that wrote the log `name`."""
        found = re.findall(r"process (\d+)", (self.run / "logs" / f"{name}.log").read_text())
        assert found, name
        return int(found[-1])

    def signal(self, name: str, number: int, after: int, process: subprocess.Popen[str]) -> None:
        """Send a signal to the process of a log, when so many steps have been reported."""
        wait_for_steps(self.folder, after, process)
        os.kill(self.pid(name), number)

    def failed(self, process: subprocess.Popen[str], limit: float = END_SECONDS) -> str:
        """The one line that the run ends with, exit code 1, within `limit` seconds."""
        _, error = process.communicate(timeout=limit)
        assert process.returncode == 1, error
        assert len(error.splitlines()) == 1, error
        return error.strip()

    def left_over(self) -> list[str]:
        """Everything that outlives the run and should not."""
        alive = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        return [
            *processes_mentioning(str(self.private)),
            *processes_mentioning(str(self.run)),
            *(str(path) for path in self.private.glob("onward-*")),
            *(str(path) for path in self.folder.rglob("*.tmp")),
            *(str(path) for path in self.folder.rglob(".replay")),
            *(name for name in set(os.listdir(SHARED_MEMORY)) - self.shared if _maker(name) not in {*alive, None}),
        ]


@contextlib.contextmanager
def disturbed(folder: Path) -> Iterator[Trial]:
    """A trial in `folder`, after which nothing may be left."""
    folder.mkdir(exist_ok=True)
    private = Path(tempfile.mkdtemp(prefix="ow-", dir="/tmp"))  # short: the path of a Unix socket has a limit
    try:
        trial = Trial(folder, private, frozenset(os.listdir(SHARED_MEMORY)))
        yield trial
        deadline = time.monotonic() + LEAVE_SECONDS
        while (left := trial.left_over()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not left, f"left behind: {left}"
    finally:
        shutil.rmtree(private, ignore_errors=True)


@functools.cache
def undisturbed(*overrides: str) -> str:
    """The digest of the same run that nothing happened to, in one process unless told otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(Path(folder), *STEPS, "runtime=serial", *overrides)
        assert result.returncode == 0, result.stderr
        return str(report(Path(folder))["final_digest"])


def python(*arguments: str) -> list[str]:
    """A command line of this interpreter."""
    return [sys.executable, *arguments]


def _maker(name: str) -> int | None:
    """The process that made a file of shared memory, if its name tells (torch's do)."""
    found = re.match(r"torch_(\d+)_", name)
    return int(found[1]) if found else None
