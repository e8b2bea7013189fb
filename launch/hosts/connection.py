"""One host of `onward train --hosts`: its ssh connection, what it answers, what it prints, and why it does not.

The user's own ssh program is started, so that keys, `~/.ssh/config` and jump hosts are used as usual. It never asks.
"""

from __future__ import annotations

import queue
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from launch.hosts.host_list import HostEntry
from launch.hosts.messages import MARKER
from pipeline.errors import UserError
from workers.control.start_messages import StartMessage
from workers.control.validation import MalformedMessage
from workers.run.environment import interpreter, own_python
from workers.run.json_lines import parse_object, write_line

SSH_OPTIONS = (
    "BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=10", "ServerAliveCountMax=3", "LogLevel=ERROR",
    "ControlMaster=no", "ClearAllForwardings=yes", "RemoteCommand=none",
)  # fmt: skip
"""No question is asked, a host that is silent for 30 s is lost, and the user's own sessions are left alone."""
PROGRAM = "launch.hosts.host_main"
ANSWER_SECONDS = 60.0
"""For ssh to connect, and for Python to start on a slow file system."""
NO_CONNECTION, NO_FOLDER, NO_PYTHON = 255, 96, 97
"""Exit codes: of ssh itself, and of `remote_command`."""
CLOSE_SECONDS = 2.0
"""For a program that has started nothing to notice that its input has ended."""
LINE_BYTES = 1 << 16
KEPT_LINES = 20
Answer = TypeVar("Answer", bound=StartMessage)


@dataclass(frozen=True)
class Checkout:
    """Where Onward is on the other hosts.

    Args:
        folder: the working directory there.
        python: its interpreter, from there.
    """

    folder: str
    python: str

    @classmethod
    def like_here(cls, folder: str | None, python: str | None) -> Checkout:
        """What the user has named; otherwise as it is here, the interpreter relative to the folder if it lies in it."""
        here, own = Path.cwd(), Path(own_python())
        usual = str(own.relative_to(here)) if own.is_relative_to(here) else str(own)
        return cls(folder or str(here), python or usual)


class HostConnection:
    """The program on one host, and the ssh that leads to it; a context manager that ends both.

    Args:
        entry: the host.
        checkout: where Onward is there.
        show: is given the host and every line that it prints on its standard output, or (True) its standard error.
    """

    def __init__(self, entry: HostEntry, checkout: Checkout, show: Callable[[HostConnection, str, bool], None]) -> None:
        self.entry, self.name, self.checkout, self._show = entry, entry.target, checkout, show
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._started = False
        """Whether its ranks are: until then what it prints only explains why it does not answer."""
        command = interpreter(PROGRAM) if entry.is_here else ssh_command(entry.target, checkout)
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except FileNotFoundError:
            raise UserError("--hosts needs the program 'ssh', which is not here. Install OpenSSH's client") from None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_out, args=(self.process.stdout,), daemon=True),
            threading.Thread(target=self._read_err, args=(self.process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def send(self, message: StartMessage) -> None:
        """Send one message; nothing happens if the connection has gone."""
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):  # it has gone, or we have closed it
            write_line(self.process.stdin.fileno(), {"type": type(message).__name__, **message.to_message()})

    def start(self, message: StartMessage) -> None:
        """Send what starts the ranks; from here on what they print is shown."""
        self._started = True
        self.send(message)

    def answer(self, kind: type[Answer], deadline: float) -> Answer:
        """The next answer, a record of `kind`, which must come until `deadline` of the monotonic clock.

        Raises:
            UserError: there is none, and why.
        """
        try:
            text = self._answers.get(timeout=max(deadline - time.monotonic(), 0.001))
        except queue.Empty:
            raise UserError(f"{self.name} does not answer within {ANSWER_SECONDS:g} s. {self._try_by_hand()}") from None
        if text is None:
            raise UserError(self._why_none())
        try:
            return kind.from_message(parse_object(text.encode()) or {})
        except MalformedMessage:
            raise UserError(f"{self.name} has another version of Onward. Check out the same commit there") from None

    def close(self) -> None:
        """Close the connection, at which the other side ends; its ranks too, if there are any."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()

    def end(self, seconds: float) -> None:
        """Wait for the end, up to `seconds` if there are ranks that end, too; then end ssh itself."""
        try:
            self.process.wait(seconds if self._started else CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for reader in self._readers:
            reader.join(1.0)  # a program that ssh has left behind may hold its output open

    def lost(self) -> str | None:
        """Why the connection has ended, if it was not because the ranks have."""
        if self.process.poll() != NO_CONNECTION or self.entry.is_here:
            return None
        return f"the connection to {self.name} was lost"

    def _read_out(self, stream: IO[bytes]) -> None:
        while line := stream.readline(LINE_BYTES):
            text = line.decode(errors="replace").rstrip("\r\n")
            if not self._started:
                if text.startswith(MARKER):
                    self._answers.put(text.removeprefix(MARKER))
            else:
                self._show(self, text, False)
        self._answers.put(None)

    def _read_err(self, stream: IO[bytes]) -> None:
        while line := stream.readline(LINE_BYTES):
            text = line.decode(errors="replace").rstrip("\r\n")
            self._errors = [*self._errors, text][-KEPT_LINES:]
            if self._started:
                self._show(self, text, True)

    def _last_error(self) -> str:
        self._readers[1].join(1.0)
        said = [line for line in self._errors if line.strip()]
        return said[-1].removeprefix("ssh: ").strip()[:300] if said else "it does not say why"

    def _try_by_hand(self) -> str:
        return f"Try by hand: ssh {shlex.quote(self.name)} true"

    def _why_none(self) -> str:
        """Why the program on the host did not answer, and what to do."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5.0)
        code, said, place = self.process.poll(), self._last_error(), self.checkout
        if code == NO_CONNECTION:
            return f"{self.name} cannot be reached by ssh ({said}). {self._remedy(said)}"
        if code == NO_FOLDER:
            return f"{self.name} has no folder '{place.folder}'. Clone Onward there, or name its clone: --chdir PATH"
        if code == NO_PYTHON:
            return (
                f"{self.name} has no Python at '{place.python}' (in '{place.folder}'). Run 'make install' there, "
                "or name the Python that has Onward: --python PATH"
            )
        return (
            f"on {self.name} '{place.python}' does not start Onward ({said}). Run 'make install' in '{place.folder}' "
            "there, or name the Python that has Onward: --python PATH"
        )

    def _remedy(self, said: str) -> str:
        if "Could not resolve" in said:
            return "Give a name or an address that this host knows, or add it to ~/.ssh/config"
        if "Permission denied" in said:
            return f"Give it your key (ssh-copy-id {shlex.quote(self.name)}); one with a passphrase needs ssh-agent"
        if "Host key verification failed" in said:
            return f"Connect once by hand, to see and accept its key: ssh {shlex.quote(self.name)} true"
        return f"Is it on, and does sshd run there? {self._try_by_hand()}"


def ssh_command(target: str, checkout: Checkout) -> list[str]:
    """The command line of ssh that starts the program on a host."""
    options = [part for option in SSH_OPTIONS for part in ("-o", option)]
    return ["ssh", "-T", *options, "--", target, remote_command(checkout)]


def remote_command(checkout: Checkout) -> str:
    """What the user's shell on the host runs, whichever shell it is: a script of the standard one."""
    python = _quoted(checkout.python)
    script = (
        f"cd {_quoted(checkout.folder)} 2>/dev/null || exit {NO_FOLDER}; "
        f"command -v {python} >/dev/null || exit {NO_PYTHON}; exec {python} -P -m {PROGRAM}"
    )
    return f"exec /bin/sh -c {shlex.quote(script)}"


def _quoted(path: str) -> str:
    """A path for a shell; `~` at its beginning is the home folder there."""
    home, _, rest = path.partition("/")
    return f'"$HOME"/{shlex.quote(rest)}' if home == "~" else shlex.quote(path)
