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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.runs import (
    LIMIT,
    Process,
    bits,
    processes_mentioning,
    report,
    start,
    train,
    wait_for_snapshot,
    wait_for_steps,
)
from tests.waiting import wait_until

STEPS = ("train.max_steps=12", "snapshots.every=4", "digests.every=3", "metrics.enabled=false")
SHARED_MEMORY = Path("/dev/shm")


def fault(kind: str, stage: int, step: int, **more: object) -> str:
    """One entry of `faults`."""
    extra = "".join(f", {key}: {value!r}" for key, value in more.items())
    return f"{{kind: {kind}, stage: {stage}, step: {step}{extra}}}"


def pause(until: Path, stage: int, step: int) -> str:
    """One entry of `faults`: the stage waits in that step until the file is there."""
    return fault("slow", stage, step, seconds=LIMIT, until=str(until))


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

    def pause(self, stage: int, step: int, until: str = "go") -> str:
        """An entry of `faults`: the stage waits in that step until `go`, so that what is done meanwhile is in time."""
        return pause(self.folder / until, stage, step)

    def go(self, until: str = "go") -> None:
        """Let a stage go on that waits."""
        (self.folder / until).touch()

    def start(self, *overrides: str) -> Process:
        return start(self.folder, *STEPS, *overrides, environment=self.environment)

    def train(self, *overrides: str) -> subprocess.CompletedProcess[str]:
        return train(self.folder, *STEPS, *overrides, environment=self.environment)

    def killed(self, stage: int, step: int, *overrides: str, snapshot: int = 0) -> None:
        """A run whose stage dies at a step, not before the snapshot after so many steps is complete."""
        killed(self.folder, (stage, step), *STEPS, *overrides, snapshot=snapshot, environment=self.environment)

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

    def signal(self, name: str, number: int, after: int, process: Process) -> None:
        """Send a signal to the process of a log, when so many steps and their snapshots are done; then `go`."""
        wait_for_steps(self.folder, after, process)
        if after >= 4:
            wait_for_snapshot(self.folder, after // 4 * 4, process)
        os.kill(self.pid(name), number)
        self.go()

    def failed(self, process: Process) -> str:
        """The one line that the run ends with, exit code 1."""
        _, error = process.communicate(timeout=LIMIT)
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
        wait_until(lambda: not trial.left_over(), lambda: f"the end of what is left behind: {trial.left_over()}")
    finally:
        shutil.rmtree(private, ignore_errors=True)


def killed(
    folder: Path,
    at: tuple[int, int],
    *overrides: str,
    snapshot: int = 0,
    environment: dict[str, str] | None = None,
    config: Path | None = None,
) -> None:
    """A run whose stage dies at a step, `at` of both, once the snapshot after `snapshot` steps is complete."""
    waits = pause(folder / "die", *at)
    process = start(folder, *overrides, faults(waits, fault("kill", *at)), environment=environment, config=config)
    if snapshot:
        wait_for_snapshot(folder, snapshot, process)
    (folder / "die").touch()
    _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 1, error
    assert not (folder / "run" / "report.json").exists()


def undisturbed(*overrides: str) -> str:
    """The digest of the same run that nothing happened to, in one process unless told otherwise."""
    return undisturbed_bits(*overrides)[0]


@functools.cache
def undisturbed_bits(*overrides: str) -> tuple[str, dict[int, dict[int, dict[str, str]]]]:
    """The same, and the digests of its steps."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(Path(folder), *STEPS, "runtime=serial", *overrides)
        assert result.returncode == 0, result.stderr
        return bits(Path(folder))


def descendants(pid: int) -> list[int]:
    """All processes that a process has started, and those that they have (Linux)."""
    found = [pid]
    for each in found:
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, path.read_text().split())
    return found[1:]


def python(*arguments: str) -> list[str]:
    """A command line of this interpreter."""
    return [sys.executable, *arguments]


def _maker(name: str) -> int | None:
    """The process that made a file of shared memory, if its name tells (torch's do)."""
    found = re.match(r"torch_(\d+)_", name)
    return int(found[1]) if found else None
