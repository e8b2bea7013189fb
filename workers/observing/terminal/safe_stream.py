"""A run that goes on although nobody can be told about it any more: its output is a closed pipe or a full disk."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from typing import Any, TextIO, cast

_log = logging.getLogger(__name__)


class SafeStream(io.TextIOBase):
    """Passes text on, and drops what cannot be written; the first time is logged. A full disk may have room later.

    Args:
        stream: where to.
        name: of the stream.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self.lost: OSError | None = None
        """Why not all could be written, if so."""
        self.matters = True
        self.told_later = False
        """Whether somebody asks `lost_output` and says it, in one line with the end of the command."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of what is written."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """What becomes of signs that the encoding does not have."""
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
    """From here on, what this process says may be lost, and ends nothing; signs that a locale lacks become others.

    Args:
        told_later: who calls this asks `lost_output` at its end and says what was lost, which is not said before.
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
    """What this command says is not what it is for: it has not failed if nobody can be told."""
    if isinstance(sys.stdout, SafeStream):
        sys.stdout.matters = sys.stdout.told_later = False


def lost_output() -> OSError | None:
    """Why not all of the standard output could be written; None too if it does not matter, or was not wanted.

    Called at the end of a process; what could not be written is not tried again.
    """
    sys.stdout.flush()
    lost = sys.stdout.lost if isinstance(sys.stdout, SafeStream) else None
    if lost is not None:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    unwanted = isinstance(lost, BrokenPipeError) or (isinstance(sys.stdout, SafeStream) and not sys.stdout.matters)
    return None if unwanted else lost


def open_standard_streams() -> None:
    """Where the standard streams were closed, open them to nowhere, lest a file of ours takes their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
