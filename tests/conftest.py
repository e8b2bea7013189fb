"""What tests of several packages need: the command line, a folder of images, and a watch on lost processes."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: on a small machine, threads fight

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.waiting import wait_until

if TYPE_CHECKING:
    from launch.prepare.prepared_run import PreparedRun

# A shell's background job (`make test &`) ignores Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples everywhere, however slow the machine; `make fuzz` is for new ones.
settings.register_profile(
    "suite", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

REPOSITORY = Path(__file__).resolve().parent.parent
HELPERS_OF_PYTHON = ("resource_tracker", "forkserver", "torch_shm_manager")


def pytest_configure(config: pytest.Config) -> None:
    """Torch is imported where tests run, and not by the process that only hands them to the workers of pytest-xdist."""
    if config.getoption("dist", "no") != "no":
        return
    import torch  # noqa: F401  # its first import asks ldconfig for libraries, which is no process of a test's

    from tests.bundled import keep_unpacked
    from tests.command_tree import keep_built
    from tests.no_gpu import note_no_seeds

    keep_unpacked()
    keep_built()
    note_no_seeds()


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def make_image_folder() -> Callable[..., Path]:
    """`make_image_folder(root, per_class=4, classes=2, size=16)` writes `root/train/classN/M.png`."""
    import numpy as np
    from PIL import Image

    def make(root: Path, per_class: int = 4, classes: int = 2, size: int = 16) -> Path:
        random = np.random.default_rng(0)
        for label in range(classes):
            folder = root / "train" / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(per_class):
                pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
        return root

    return make


class NoAccount:
    """In the place of `launch.plan.child.AccountProcess`."""

    def __enter__(self) -> NoAccount:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def account(self, config: object, *arguments: object) -> tuple[object, tuple[()], None]:
        return config, (), None


@pytest.fixture
def onward(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """The command line in this process: `onward("check", path, "seed=1")`, which says nothing of what the run needs.

    That takes seconds in a process of its own; tests/launch/commands/test_check_account.py looks at it.
    """
    from launch.cli import main

    monkeypatch.setattr("launch.commands.check.AccountProcess", NoAccount)

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


@pytest.fixture
def onward_process() -> Callable[..., Outcome]:
    """The command line in a process of its own, killed after a minute: `onward_process("check", path, cwd=folder)`."""

    def run(*arguments: object, cwd: Path, timeout: float = 60.0) -> Outcome:
        command = [sys.executable, "-m", "launch.cli", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def fake_training(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Puts a stand-in for `launch.processes.local` in place; returns the run directories it was called with."""
    called: list[Path] = []
    stand_in = ModuleType("launch.processes.local")

    def run_training(prepared: PreparedRun) -> int:
        called.append(prepared.run.path)
        return 0

    stand_in.__dict__["run_training"] = run_training
    monkeypatch.setitem(sys.modules, "launch.processes.local", stand_in)
    return called


STARTS = frozenset(("subprocess.Popen", "os.fork", "os.posix_spawn", "os.system", "tests.process"))
_starting: list[pytest.Item] = []
"""The test that runs now, if it may start no process."""


def _refuse_processes(event: str, arguments: tuple[object, ...]) -> None:
    """What starts a process belongs to tests that say so, or `make test-quick` would not be quick."""
    if event in STARTS and _starting:
        raise RuntimeError(f"{_starting[0].nodeid} starts a process ({event}): mark it with pytest.mark.processes")


sys.addaudithook(_refuse_processes)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """What is imported and collected stays to the end: looking for garbage in it takes a third of the collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)  # as often as Python does it, it takes a twentieth of the time


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Watches over what a test starts."""
    if not any(item.get_closest_marker(name) for name in ("processes", "slow", "gpu")):
        _starting.append(item)
    try:
        return (yield)
    finally:
        _starting.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:
    """A failed test says where its run directories are."""
    report: pytest.TestReport = yield
    if report.failed:
        folders = {value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Path)}
        if found := sorted({str(run) for folder in folders for run in _runs_below(folder)}):
            report.sections.append(("run directories", "\n".join(found)))
    return report


def _runs_below(folder: Path) -> Iterator[Path]:
    return (path.parent for depth in range(4) for path in folder.glob("*/" * depth + "config.yaml"))


@pytest.fixture(autouse=True)
def _no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start asks git which commits it is of; a test that may start no process has none."""
    if _starting:
        import launch.prepare.git_commit

        monkeypatch.setattr(launch.prepare.git_commit, "find_git", lambda: None)


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """A command that runs in this process settles variables for what it starts; other tests start other things."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def _processes_can_be_forked() -> None:
    """Autograd asks for devices at the first backward pass of a process, and takes a fake GPU for one.

    It would start a thread for it, after which no process that is forked here could compute a gradient.
    """
    import torch

    torch.ones(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Every process that the tests start must be gone at the end; a lost one holds ports and memory."""
    yield
    wait_until(lambda: not _children(os.getpid()), lambda: f"the end of {_children(os.getpid())}", 30.0)


def _children(parent: int) -> list[str]:
    """Command lines of the live child processes of one, and of the server that forks for the tests (Linux)."""
    found = []
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        try:
            pids = path.read_text().split()
        except OSError:
            continue
        for pid in pids:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if "-m tests.fork_server" in command:
                found += _children(int(pid))
            elif command and not any(
                name in command for name in HELPERS_OF_PYTHON
            ):  # empty: a zombie, waited for later
                found.append(command)
    return found
