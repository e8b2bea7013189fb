"""How a command ends: its exit code, and any error as one line for the user: what, where, and what to do.

Errors of the kinds of `pipeline.errors` have such a message. An error of the operating system gets one by its number;
any other is a fault of the program, whose traceback goes to a file that the line names.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pipeline.errors import OnwardError, UserError, is_out_of_memory, printable
from workers.run.no_kernel import strict_refusal

EXIT_FAILED = 1
"""Training failed; the reason is one line on stderr."""
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
REMEDIES = {
    errno.ENOSPC: "Make room, or write elsewhere",
    errno.EDQUOT: "Your quota is used up: make room, or write elsewhere",
    errno.EACCES: "Give this user the right to, or name another place",
    errno.EPERM: "Give this user the right to, or name another place",
    errno.EROFS: "That file system is read-only: name a folder that can be written",
    errno.ENOENT: "Is it a file or folder that is there?",
    errno.ENOTDIR: "A part of that path is a file",
    errno.EISDIR: "That is a folder: give a file",
    errno.ENAMETOOLONG: "Give a shorter path",
    errno.ELOOP: "Symbolic links lead round in a circle there",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
    errno.ENFILE: "This machine has too many open files",
    errno.ENOMEM: "Free some memory",
    errno.EAGAIN: "Raise the limit of processes (ulimit -u)",
    errno.ENOLCK: "That file system has no locks: name a folder on another",
    errno.ENOSYS: "This kernel lacks a call that is needed: take a newer one, or another container runtime",
    errno.EIO: "The disk or the network behind it fails",
    errno.ESTALE: "The network file system has lost it: mount it again",
}


def print_error(line: str) -> None:
    """Print a line on the standard error."""
    print(printable(line), file=sys.stderr)


def report_error(error: BaseException) -> int:
    """Print in one line what ended the command; returns the exit code."""
    text, code = in_one_line(error)
    print_error(text)
    return code


@contextmanager
def failures_in_words() -> Iterator[None]:
    """Whatever ends a command becomes one line on stderr and an exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        raise typer.Exit(report_error(error)) from None


def in_one_line(error: BaseException) -> tuple[str, int]:
    """The line to print, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    error = strict_refusal(error, "") or error
    if isinstance(error, OnwardError):
        return f"error: {_flat(error)}", EXIT_BAD_INPUT if isinstance(error, UserError) else EXIT_FAILED
    details = _keep_traceback(error)
    if isinstance(error, OSError) and error.errno is not None:
        names = [repr(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        problem = f"{' and '.join(names)}: {error.strerror}" if names else str(error.strerror)
        return f"error: {problem}. {REMEDIES.get(error.errno, 'The system does not say more')}{details}", EXIT_BAD_INPUT
    if is_out_of_memory(error):
        return f"error: memory ran out{f' ({_flat(error)})' if str(error) else ''}. Free some{details}", EXIT_FAILED
    return f"error: a fault of the program: {type(error).__name__}: {_flat(error)}{details}", EXIT_FAILED


def in_a_sentence(error: BaseException) -> str:
    """The same line without its first word, for others who print it."""
    return in_one_line(error)[0].removeprefix("error: ")


def _flat(error: BaseException) -> str:
    return " ".join(printable(str(error)).split())


def _keep_traceback(error: BaseException) -> str:
    """Write the traceback to a new file; returns where, for the end of a line, or nothing if that is not possible."""
    try:
        descriptor, path = tempfile.mkstemp(prefix="onward-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(printable("".join(traceback.format_exception(error))))
    except OSError:
        return ""
    return f" (details in {path})"
