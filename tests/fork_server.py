"""Processes of a test session, forked from one that has imported everything: command lines, peers, torchrun.

Six tiny steps cost less than a second of computing, importing PyTorch in the processes of a run five. What such a
process starts in interpreters of its own (the fork server of a run, a serial run, torchrun's ranks) is forked too.
Arguments, environment, `sitecustomize`, streams, signals and exit codes are those of `python -m`; only the freeing of
what was imported is left out at the end. Tests of how a process begins or ends, and those that another program starts,
use new interpreters; so do the workers of a run's feed.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import importlib
import importlib.util
import io
import json
import os
import platform
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
from pathlib import Path
from typing import Any, NoReturn

from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

from launch.processes import fork_server
from launch.processes.fork_server import PRELOAD, load, run_as, serve
from tests.bundled import keep_unpacked, unpack
from tests.command_tree import build, keep_built
from tests.no_gpu import note_no_seeds
from tests.session_server import ARGUMENTS, COMMAND, HELD, NAMESPACES, SessionServer
from workers.run.signals import WARNINGS

RECEIVED = "ONWARD_TEST_RECEIVED"
TORCHRUN, RANK = "torch.distributed.run", "launch.train"
FORKED = ("launch.processes.fork_server", "launch.plan.child", "tests.fork_server", RANK)
"""Modules that a command starts as `python -m`, and that need nothing of a new interpreter."""
OF_RANKS = (RANK, "launch.evaluate", "launch.processes.coordinator_main")
"""What torchrun starts, and what its ranks do."""
ROOT = Path(__file__).resolve().parents[1]
ALSO = (
    "launch.cli",
    "launch.processes.local",
    "launch.train",
    "launch.evaluate",
    "launch.plan.compute",
    "torchvision",
    "deepspeed",
    "workers.links.rpc",
    "torch.distributed.run",
)


class ForkedPopen:
    """What `subprocess.Popen([sys.executable, "-P", "-m", module, ...])` does, by forking this process."""

    def __init__(
        self,
        arguments: Sequence[str],
        env: dict[str, str],
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: io.IOBase | int | None = None,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> None:
        self.returncode: int | None = None
        reader, writer = os.pipe()  # whose closing tells the child that its parent has gone
        self.stdin = os.fdopen(writer, "wb", 0)
        answers = os.pipe() if stdout == subprocess.PIPE else None
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin == subprocess.DEVNULL else reader, 0)
            if answers is not None:
                os.dup2(answers[1], 1)
            if stderr is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY) if isinstance(stderr, int) else stderr.fileno(), 2)
            _close_all_but({0, 1, 2, *pass_fds})
            os.setsid() if start_new_session else None
            _run(arguments[3], arguments[4:], env)
        os.close(reader)
        self.stdout = None
        if answers is not None:
            os.close(answers[1])
            self.stdout = os.fdopen(answers[0], "rb", 0)

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
        _become(module, arguments)

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
    except KeyboardInterrupt:
        traceback.print_exc()
        code = -signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody reads it any more
            code = 120
        if code == -signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(code)


def _out_of_the_way(descriptor: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 1000)
    os.close(descriptor)
    return moved


def _enter(namespaces: Sequence[str]) -> None:
    """Become a process of another host of tests/laboratory: what the command nsenter does, in its checkout.

    Only a child is in the namespace of processes, so this one waits for it, and ends as it does.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    opened = [os.open(path, os.O_RDONLY) for path in namespaces]  # all, before /proc is that of the other host
    for path, descriptor in zip(namespaces, opened, strict=True):
        if libc.setns(descriptor, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        os.close(descriptor)
    os.chdir(ROOT)
    platform._uname_cache = None  # type: ignore[attr-defined]  # the name of this host
    if not any(path.endswith("/pid") for path in namespaces) or not (child := os.fork()):
        return
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


def _ordered() -> None:
    """In the forked process: what was ordered, as an interpreter would have begun with it."""
    if namespaces := os.environ.pop(NAMESPACES, ""):
        _enter(namespaces.split(":"))
    module, *arguments = json.loads(os.environ.pop(ARGUMENTS))
    wanted, received = (json.loads(os.environ.pop(name)) for name in (HELD, RECEIVED))
    for number, descriptor in zip(wanted, [_out_of_the_way(descriptor) for descriptor in received], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for number in (signal.SIGHUP, *WARNINGS):
        signal.signal(number, signal.SIG_DFL)  # the server ignores them
    tempfile.tempdir = None  # it was found out while everything was imported, as was where to look for modules
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[1:1] = folders
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    sys.stdout, sys.stderr = (
        open(number, "w", buffering, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
        for number, buffering, errors in ((1, -1, "strict"), (2, 1, "backslashreplace"))  # errors are seen at once
    )
    _fork_for_interpreters(module)
    sys.orig_argv = [sys.executable, "-P", "-m", module, *arguments]
    for hook in (Path(folder, "sitecustomize.py") for folder in folders):
        if hook.exists():  # which an interpreter runs at its start; the processes of a run inherit what it has done
            runpy.run_path(str(hook))
    if module == COMMAND:
        importlib.import_module(COMMAND).main(arguments)
    else:
        _become(module, arguments)


def _become(module: str, arguments: Sequence[str]) -> None:
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)  # as in a new interpreter: what runs as __main__ has not been imported
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _fork_for_interpreters(module: str) -> None:
    """What this process starts as `python -m` is forked too.

    torchrun has threads when it starts the ranks, and so has rank 0 when it starts the coordinator: a fork of theirs
    could hang. Each has a server of its own for them, made while it has none.
    """
    new_interpreter, execve = subprocess.Popen, os.execve
    server: SessionServer | None = None

    def popen(args: Sequence[str], **options: Any) -> Any:
        if list(args[:3]) == [sys.executable, "-P", "-m"] and args[3] in FORKED:
            return ForkedPopen(args, **options)
        begin = list(args[:2])
        if server is None or begin not in ([sys.executable, "-u"], [sys.executable, "-P"]) or args[3] not in OF_RANKS:
            return new_interpreter(args, **options)
        streams = (options.get("stdin") or 0, options.get("stdout") or 1, options.get("stderr") or 2)
        held = options.get("pass_fds", ())
        return server.run(args[3], args[4:], options["env"], streams, held)

    def become(path: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
        if list(arguments[:3]) != [sys.executable, "-P", "-m"] or arguments[3] not in OF_RANKS:
            execve(path, arguments, environment)
        os.environ.clear()
        os.environ.update(environment)
        _become(arguments[3], arguments[4:])

    subprocess.Popen = subprocess_handler.Popen = popen  # type: ignore[assignment,misc]
    os.execve = become  # type: ignore[assignment]
    if module == TORCHRUN or (module == RANK and os.environ.get("RANK") == "0"):
        log = Path(tempfile.mkstemp(prefix="onward-tests-")[1])
        server = SessionServer(dict(os.environ), log)
        log.unlink()


if __name__ == "__main__":
    if ARGUMENTS in os.environ:
        _ordered()
    else:
        channel = socket.socket(fileno=int(sys.argv[1]))
        # `make gpu` takes interpreters without DeepSpeed
        load(name for name in (*PRELOAD, *ALSO) if importlib.util.find_spec(name.partition(".")[0]))
        fork_server.STREAMS += 10
        keep_unpacked()
        unpack()
        keep_built()
        build()
        note_no_seeds()
        ordered = serve(channel)
        if ordered is not None:
            os.environ[RECEIVED] = json.dumps(ordered.streams[4:])
            _leave(lambda: run_as(ordered))
