"""The side of the test session: asks `tests/fork_server.py` for processes, and hears how they end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from launch.processes.fork_client import Forked, ForkServer

COMMAND = "launch.cli"
ARGUMENTS, HELD = "ONWARD_TEST_ARGUMENTS", "ONWARD_TEST_HELD"
"""Variables in which an order carries more than its module."""
NAMESPACES = "ONWARD_TEST_NAMESPACES"
"""The variable with the files of the namespaces that the process enters first, separated by colons: another host."""


class SessionServer(ForkServer):
    """Forks the command lines of one test session."""

    module = "tests.fork_server"

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        environment: dict[str, str],
        streams: tuple[int, int, int],
        held: Sequence[int] = (),
    ) -> Forked:
        """`python -m MODULE ARGUMENTS` in a process of its own.

        Args:
            module, arguments: what it runs.
            environment: all of it.
            streams: its standard ones.
            held: open files that it has under the same numbers.
        """
        given = {**environment, ARGUMENTS: json.dumps([module, *arguments]), HELD: json.dumps(held)}
        name = "onward" if module == COMMAND else module
        title = " ".join((name, *arguments, environment.get("TMPDIR", "")))  # by which tests find what is left
        with Path(os.devnull).open("rb") as nothing:
            return self.start("tests.fork_server", title, given, (*streams, nothing.fileno(), *held))

    def command(self, arguments: Sequence[str], environment: dict[str, str], out: int, err: int) -> Forked:
        """`onward ARGUMENTS`, or what begins with `python -m MODULE`, in a process of its own."""
        module, *rest = arguments[2:] if list(arguments[:2]) == [sys.executable, "-m"] else (COMMAND, *arguments)
        with Path(os.devnull).open("rb") as nothing:
            return self.run(module, rest, environment, (nothing.fileno(), out, err))

    def peer(self, module: str) -> Peer:
        """`python -m MODULE` in a process of its own that is spoken to through its standard streams."""
        (reader, stdin), (stdout, writer) = os.pipe(), os.pipe()
        forked = self.run(module, (), dict(os.environ), (reader, writer, 2))
        os.close(reader)
        os.close(writer)
        return Peer(forked, os.fdopen(stdin, "w"), os.fdopen(stdout))


@dataclass(frozen=True)
class Peer:
    """The part of `subprocess.Popen` that tests need."""

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
