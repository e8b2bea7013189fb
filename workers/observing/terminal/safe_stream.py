"""Keeps a run going when its output cannot be written: a closed pipe, a full disk."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from typing import Any, TextIO, cast

_log = logging.getLogger(__name__)


class SafeStream(io.TextIOBase):
    """Passes text on and drops what cannot be written; logs the first loss. A full disk may get room again.

    Args:
        stream: the underlying stream.
        name: of the stream.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self.lost: OSError | None = None
        """The first error, if any output was lost."""
        self.matters = True
        self.told_later = False
        """Whether the caller reports lost output itself at the end of the command (`lost_output`)."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """How the stream handles characters that its encoding lacks."""
        return self._stream.errors

    def write(self, text: str, /) -> int:
        """See `io.TextIOBase.write`; never raises `OSError`."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """See `io.TextIOBase.flush`; never raises `OSError`."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def isatty(self) -> bool:
        """See `io.TextIOBase.isatty`."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """See `io.TextIOBase.fileno`."""
        return self._stream.fileno()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def writable(self) -> bool:
        """See `io.TextIOBase.writable`."""
        return True

    def _give_up(self, error: OSError) -> None:
        if self.lost is None:
            self.lost = error
            if self.told_later:
                return
            _log.warning("not all that is said can be written to %s (%s)", self._name, error.strerror)


def survive_lost_output(told_later: bool = False) -> None:
    """From here on, lost output does not end this process; characters that the locale lacks are replaced.

    Args:
        told_later: the caller reports lost output at its end (`lost_output`); it is not logged before.
    """
    if not isinstance(sys.stdout, SafeStream):
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        outlet = SafeStream(sys.stdout, "the standard output")
        outlet.told_later = told_later
        sys.stdout = cast(TextIO, outlet)
    if not isinstance(sys.stderr, SafeStream):
        sys.stderr = cast(TextIO, SafeStream(sys.stderr, "the standard error"))


def expect_no_reader() -> None:
    """The output of this command is not its result, so lost output is no failure."""
    if isinstance(sys.stdout, SafeStream):
        sys.stdout.matters = sys.stdout.told_later = False


def lost_output() -> OSError | None:
    """The error with which standard output was lost; None if none was, or if that does not matter.

    Called at the end of a process; lost output is not retried.
    """
    sys.stdout.flush()
    lost = sys.stdout.lost if isinstance(sys.stdout, SafeStream) else None
    if lost is not None:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    unwanted = isinstance(lost, BrokenPipeError) or (isinstance(sys.stdout, SafeStream) and not sys.stdout.matters)
    return None if unwanted else lost


def open_standard_streams() -> None:
    """Open closed standard streams to /dev/null, so that no other file gets their descriptors."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
