"""The command line of a test, forked from a process that has imported everything once for the whole session.

Six tiny steps cost less than a second of computing, importing PyTorch in the processes of a run five. What such a
command starts in interpreters of its own (the fork server of its run, a serial run) is forked too. Nothing else is
different: arguments, environment, streams, signals and exit codes are those of `python -m`. Tests of how a process
begins, and those that another program starts, use new interpreters.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

from launch.processes.fork_client import Forked, ForkServer
from launch.processes.fork_server import PRELOAD, run_as, serve

ARGUMENTS = "ONWARD_TEST_ARGUMENTS"
FORKED = ("launch.processes.fork_server", "launch.train")
"""Modules that a command starts as `python -m`, and that need nothing of a new interpreter."""
ALSO = (
    "launch.cli",
    "launch.processes.local",
    "launch.train",
    "launch.evaluate",
    "torchvision",
    "deepspeed",
    "workers.links.rpc",
)


class SessionServer(ForkServer):
    """Forks the command lines of one test session."""

    module = "tests.fork_server"

    def command(self, arguments: Sequence[str], environment: dict[str, str], out: int, err: int) -> Any:
        """`onward ARGUMENTS` in a process of its own."""
        environment = {**environment, ARGUMENTS: json.dumps(arguments)}
        with Path(os.devnull).open("rb") as nothing:
            title = " ".join(("onward", *arguments, environment.get("TMPDIR", "")))  # by which tests find what is left
            return self.start("tests.fork_server", title, environment, (nothing.fileno(), out, err, nothing.fileno()))

    def peer(self, module: str) -> Peer:
        """`python -m MODULE` in a process of its own that is spoken to through its standard streams."""
        (reader, stdin), (stdout, writer) = os.pipe(), os.pipe()
        with Path(os.devnull).open("rb") as nothing:
            streams = (reader, writer, 2, nothing.fileno())
            forked = self.start(module, f"test {module}", dict(os.environ), streams)
        os.close(reader)
        os.close(writer)
        return Peer(forked, os.fdopen(stdin, "w"), os.fdopen(stdout))


@dataclass(frozen=True)
class Peer:
    """The part of `subprocess.Popen` that tests with peers need."""

    forked: Forked
    stdin: TextIO
    stdout: TextIO

    @property
    def pid(self) -> int:
        return self.forked.pid

    def wait(self, timeout: float) -> int:
        return self.forked.wait(timeout)

    def kill(self) -> None:
        self.forked.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


class ForkedPopen:
    """What `subprocess.Popen([sys.executable, "-P", "-m", module, ...])` does, by forking this process."""

    def __init__(
        self,
        arguments: Sequence[str],
        env: dict[str, str],
        stdin: int | None = None,
        stderr: io.IOBase | None = None,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> None:
        self.returncode: int | None = None
        reader, self._writer = os.pipe()  # whose closing tells the child that its parent has gone
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin == subprocess.DEVNULL else reader, 0)
            if stderr is not None:
                os.dup2(stderr.fileno(), 2)
            _close_all_but({0, 1, 2, *pass_fds})
            os.setsid() if start_new_session else None
            _run(arguments[3], arguments[4:], env)
        os.close(reader)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        while self.poll() is None:
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        self._send(number)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _close_all_but(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:  # that of the listing itself
                continue


def _run(module: str, arguments: Sequence[str], environment: dict[str, str]) -> NoReturn:
    """Be the process that runs `module`; never returns into the frames of the one that forked."""

    def run() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [module, *arguments]
        sys.modules.pop(module, None)  # as in a new interpreter: what runs as __main__ has not been imported
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    _leave(run)


def _leave(run: Callable[[], None]) -> NoReturn:
    """Do it and end as an interpreter would, but without freeing all that was imported, which takes 0.4 s."""
    code = 1
    try:
        run()
        code = 0
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _command() -> None:
    """In the forked process: the command line, whose interpreters are forks."""
    new_interpreter = subprocess.Popen

    def popen(arguments: Sequence[str], **options: Any) -> Any:
        forked = list(arguments[:3]) == [sys.executable, "-P", "-m"] and arguments[3] in FORKED
        return ForkedPopen(arguments, **options) if forked else new_interpreter(arguments, **options)

    arguments = json.loads(os.environ.pop(ARGUMENTS))
    tempfile.tempdir = None  # it was found out while everything was imported, as was where to look for modules
    sys.path[1:1] = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    subprocess.Popen = popen  # type: ignore[assignment,misc]
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    sys.stdout, sys.stderr = (
        open(number, "w", encoding=encoding, errors=errors)  # noqa: SIM115
        for number, errors in ((1, "strict"), (2, "backslashreplace"))
    )
    from launch.cli import main

    main(arguments)


if __name__ == "__main__":
    if ARGUMENTS in os.environ:
        _command()
    else:
        channel = socket.socket(fileno=int(sys.argv[1]))
        gc.disable()
        for name in (*PRELOAD, *ALSO):
            importlib.import_module(name)
        gc.collect()
        gc.freeze()
        gc.enable()
        ordered = serve(channel)
        if ordered is not None:
            _leave(lambda: run_as(ordered))
