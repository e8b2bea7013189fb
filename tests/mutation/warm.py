"""A Python that has imported what takes seconds, and forks for every run of tests: `python -P warm.py` in a checkout.

It reads orders from its standard input, a line of JSON each, `{"arguments": [...], "skip": [...], "log": PATH,
"silence": SECONDS}`, and answers with a line each, the fields of `bench.Outcome`. Nothing of the checkout is imported
here, so that every fork reads the files as they are then. A run that says nothing for too long is killed, with all that
it has started and lost: this process adopts those (Linux). It ends when its orders do, in the middle of a run too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

LIBRARIES = (
    "numpy", "torch", "torch.distributed.rpc", "torchvision", "scipy.ndimage", "cv2", "PIL.Image", "yaml", "pydantic",
    "safetensors.torch", "typer", "rich.live", "prometheus_client", "matplotlib.pyplot", "deepspeed", "hypothesis",
    "pytest", "pytest_timeout", "_hypothesis_pytestplugin", "sklearn.linear_model", "skimage.util", "jsonschema",
)  # fmt: skip
ADOPT = 36
"""PR_SET_CHILD_SUBREAPER of prctl."""
ENDS_BY_ITSELF = (b"resource_tracker", b"torch_shm_manager")
"""They remove shared memory once nobody is left; killed, they leave it behind."""
PAUSE = 0.02
TIDYING = 2.0
"""Seconds in which they should have."""


class Recorder:
    """Tells what the tests of a run do, a line each; leaves out those of `skip`."""

    def __init__(self, told: int, skip: list[str]) -> None:
        self._told, self._skip = told, set(skip)
        self._failed = False

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid not in self._skip]

    def pytest_collectreport(self, report: Any) -> None:
        self._tell("failed" if report.failed else "collected", report.nodeid, 0.0)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._failed = False
        self._tell("started", nodeid, 0.0)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._failed = self._failed or report.failed
        over = report.when == "teardown" and not self._failed
        self._tell("failed" if report.failed else "passed" if over else report.when, report.nodeid, report.duration)

    def _tell(self, *words: object) -> None:
        os.write(self._told, json.dumps(words).encode() + b"\n")


def run(order: dict[str, Any]) -> dict[str, Any]:
    """One run of pytest in a fork."""
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        _become_pytest(order, told)
    os.close(told)
    lines, code, last = b"", None, time.monotonic()
    while code is None and time.monotonic() - last < order["silence"]:
        ready = select.select([heard, 0], [], [], PAUSE)[0]
        if 0 in ready:  # nothing is ordered during a run: the other end has gone
            _end_descendants()
            os._exit(1)
        if heard in ready and (data := os.read(heard, 1 << 16)):
            lines, last = lines + data, time.monotonic()
        code = _reap(child)
    _end_descendants()
    os.set_blocking(heard, False)
    with contextlib.suppress(BlockingIOError):
        while data := os.read(heard, 1 << 16):
            lines += data
    os.close(heard)
    return _sum_up([json.loads(line) for line in lines.splitlines()], code)


def _become_pytest(order: dict[str, Any], told: int) -> None:
    code = 99
    try:
        os.setsid()
        for descriptor, path, flags in (
            (0, os.devnull, os.O_RDONLY), (1, order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        ):  # fmt: skip
            os.dup2(os.open(path, flags, 0o600), descriptor)
        os.dup2(1, 2)
        sys.modules["__main__"] = ModuleType("__main__")  # one without a file, which a spawned process would run again
        import pytest

        code = int(pytest.main(order["arguments"], plugins=[Recorder(told, order["skip"])]))
        sys.stdout.flush()
    finally:
        os._exit(code)


def _reap(child: int) -> int | None:
    """Bury whoever has died; returns how `child` ended, None while it lives."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == child:
                return os.waitstatus_to_exitcode(found[1])
    return None


def _descendants() -> dict[int, bytes]:
    """The command lines of all processes below this one."""
    found: dict[int, bytes] = {}
    waiting = [os.getpid()]
    while waiting:
        with contextlib.suppress(OSError):  # whoever is gone has no children here any more
            for path in list(Path(f"/proc/{waiting.pop()}/task").iterdir()):
                for pid in map(int, (path / "children").read_text().split()):
                    found[pid] = b""
                    waiting.append(pid)
                    with contextlib.suppress(OSError):
                        found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


def _end_descendants() -> None:
    began = time.monotonic()
    while left := _descendants():
        patient = time.monotonic() - began < TIDYING
        for pid, command in left.items():
            if not (patient and any(name in command for name in ENDS_BY_ITSELF)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        _reap(0)
        time.sleep(PAUSE)


def _sum_up(events: list[list[Any]], code: int | None) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    running: str | None = None
    failed, passed = [], []
    for what, name, duration in events:
        seconds[name] = seconds.get(name, 0.0) + duration
        if what == "started":
            running = name
        elif what == "passed":
            passed.append(name)
        elif what == "failed":
            failed.append(name)
        if what in ("passed", "failed"):
            running = None
    seconds = {name: seconds[name] for name in passed}
    failed += [running] if running else []
    return {"code": code, "failed": failed, "passed": passed, "seconds": seconds}


def main() -> None:
    """Import, say so, and serve."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    ctypes.CDLL(None).prctl(ADOPT, 1)
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # or every fork would copy and search what is here, several times
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)
    os._exit(0)  # nothing is left to tidy, and torch takes seconds to


if __name__ == "__main__":
    main()
