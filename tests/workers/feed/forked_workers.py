"""Workers of a feed that are forked from the server of the test session, and need not import torch."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence

from tests.runs import session_server

_asking = threading.RLock()
"""The server is spoken to by the threads of the feed, and by the test."""


class ForkedWorker:
    """The part of `subprocess.Popen` that the feed needs, with pipes for standard input and output."""

    def __init__(
        self, arguments: Sequence[str], stdin: int, stdout: int, pass_fds: Sequence[int], env: dict[str, str]
    ) -> None:
        assert list(arguments[:3]) == [sys.executable, "-P", "-m"]
        (reader, requests), (answers, writer) = os.pipe(), os.pipe()
        sys.audit("tests.process", arguments)
        with _asking:
            self._forked = session_server().run(arguments[3], (), env, (reader, writer, 2), held=pass_fds)
        os.close(reader)
        os.close(writer)
        self.pid = self._forked.pid
        self.stdin, self.stdout = os.fdopen(requests, "wb", 0), os.fdopen(answers, "rb")

    @property
    def returncode(self) -> int | None:
        """Once it is known to have ended."""
        return self._forked.returncode

    def wait(self, timeout: float) -> int:
        with _asking:
            return self._forked.wait(timeout)

    def kill(self) -> None:
        with _asking:
            self._forked.kill()
