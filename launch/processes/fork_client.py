"""The starting side of the fork server: asks it for processes, and hears how they end."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from launch.processes.fork_server import MESSAGE_BYTES
from pipeline.errors import TrainingError
from pipeline.ordinary_files import open_to_write
from workers.control.start_messages import ForkOrder
from workers.run.closable import Closable
from workers.run.environment import interpreter
from workers.run.polling import readable

START_SECONDS = 120.0
"""For the server to import what it preloads, on a machine that is busy with the imports of others."""
CLOSE_SECONDS = 10.0
POLL_SECONDS = 0.02
LOST = 255
"""Stands for the exit code of a process whose end nobody saw, because the server was gone."""


class Forked:
    """A process that the server forked; the part of `subprocess.Popen` that a supervisor needs."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server, self.pid = server, pid
        self.returncode: int | None = None
        self._handle: int | None = None
        with suppress(OSError, AttributeError):  # it has ended, which the server will say; or the kernel has none
            self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Its exit code, or minus the number of the signal that ended it; None while it lives."""
        if self.returncode is None:
            self._server.listen()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As `poll`, once it has ended; raises `subprocess.TimeoutExpired` after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self._server.listen(min(left, 1.0))
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """End it at once, if it has not ended yet."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended yet."""
        if self.poll() is not None:
            return
        with suppress(ProcessLookupError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, number)
            elif not self._server.gone():  # while its parent has not buried it, its number is nobody else's
                os.kill(self.pid, number)

    def ended(self, code: int) -> None:
        """Take note of how it ended."""
        self.returncode = code
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def gone(self) -> bool:
        """Whether it has ended, seen without the server."""
        if self._handle is not None:
            return bool(readable([self._handle], 0.0))
        try:
            os.kill(self.pid, 0)
        except OSError:
            return True
        return False


class ForkServer(Closable):
    """Starts the server, and processes through it; a server that was killed is started again when it is needed.

    A context manager, at whose end the server is gone.

    Args:
        environment: of the server; what the processes read while they import must be in it.
        log: where the server's errors go.
    """

    module = "launch.processes.fork_server"
    """What the server runs."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment, self._log = environment, log
        self._living: dict[int, Forked] = {}
        self._born: list[Forked] = []
        self._launch()

    def start(self, module: str, title: str, environment: dict[str, str], streams: tuple[int, ...]) -> Forked:
        """A process that runs `module` as `python -m` would.

        Args:
            module: in the place of the program.
            title: what `ps` shows.
            environment: all of its environment.
            streams: standard input, output and error, where it answers, and what it only keeps open, if anything;
                the caller's copies stay open.

        Raises:
            TrainingError: the server ends, or takes too long.
        """
        if self._process.poll() is not None:
            self.close()
            self._launch()
        # What the server has anyway need not be sent: environments are larger than a message may be.
        changes = {name: value for name, value in environment.items() if self._environment.get(name) != value}
        gone = tuple(name for name in self._environment if name not in environment)
        order = json.dumps(ForkOrder(module=module, title=title, changes=changes, gone=gone).to_message()).encode()
        try:
            socket.send_fds(self._orders, [order], streams)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise TrainingError(
                    f"no process could be started: its environment differs by {len(order)} bytes from ours"
                ) from None  # any other error: the server is found gone below
        deadline = time.monotonic() + START_SECONDS
        while not self._born:
            if self._process.poll() is not None:
                raise TrainingError(f"no process could be started: the fork server ended; see '{self._log}'")
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"no process could be started within {START_SECONDS:.0f} s, in which the fork server imports "
                    "PyTorch: this machine is too busy, or its file system too slow"
                )
            self.listen(0.1)
        return self._born.pop()

    def listen(self, timeout: float = 0.0) -> None:
        """Take note of what the server says; waits `timeout` seconds for it to say something."""
        while readable([self._orders.fileno()], timeout):
            timeout = 0.0
            try:
                data = self._orders.recv(MESSAGE_BYTES)
            except OSError:
                data = b""
            if not data:
                self._look_after_orphans()
                return
            word = json.loads(data)
            if "started" in word:
                pid = word["started"]
                self._living[pid] = Forked(self, pid)
                self._born.append(self._living[pid])
            elif (forked := self._living.pop(word["ended"], None)) is not None:
                forked.ended(word["code"])

    def gone(self) -> bool:
        """Whether the server has ended, and with it who buries its processes."""
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        """Of the server."""
        return self._process.pid

    def close(self) -> None:
        """End the server; processes that it forked live on."""
        self._orders.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # the kernel holds it
            self._process.wait(CLOSE_SECONDS)

    def _launch(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open_to_write(self._log, self._log.parent.parent) as file:
            self._process = subprocess.Popen(
                interpreter(self.module, str(theirs.fileno())),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stderr=file,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def _look_after_orphans(self) -> None:
        """Without the server nobody says how its processes end; that they have ended can still be seen."""
        for pid, forked in list(self._living.items()):
            if forked.gone():
                self._living.pop(pid).ended(LOST)
        time.sleep(POLL_SECONDS)
