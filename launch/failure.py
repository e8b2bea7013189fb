"""The record of a failed run: `failure.json`, and the exit code."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from typing import Any

from launch.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, print_error
from workers.control.failures import FailureReport, RunFailed, failure_report
from workers.run.environment import PREPARED
from workers.run.files import RunDir, read_object, write_json

EXIT_CODES = {"bad_input": EXIT_BAD_INPUT, "interrupted": EXIT_INTERRUPTED}


class FailureRecorder:
    """Writes down once why a run has failed, before the other processes are notified, which may take long.

    Args:
        run: the run directory.
        who: the process that runs it, for the record.
    """

    def __init__(self, run: RunDir, who: str) -> None:
        self._run, self._who = run, who
        self._code: int | None = None

    def failed(self, error: BaseException) -> int:
        """Record the error that has ended the run, unless there is a record; returns the exit code."""
        if self._code is None:
            if isinstance(error, RunFailed):
                failure = error.failure
            else:
                logging.error("%s failed", self._who, exc_info=error)
                failure = failure_report(self._who, None, error)
            self._code = record_failure(self._run, failure)
        return self._code


def record_failure(run: RunDir, failure: FailureReport) -> int:
    """Write the cause of a failed run, and print it unless the command line will; returns the exit code."""
    if not write_failure(run, failure):  # a full disk is a common cause
        print(in_words(failure.kind, str(failure.error())), flush=True)
    elif PREPARED not in os.environ:
        with suppress(OSError):
            print_error(in_words(failure.kind, str(failure.error())))
    return exit_code(failure)


def write_failure(run: RunDir, failure: FailureReport) -> bool:
    """Write the cause of a failed run; returns whether that was possible."""
    document: dict[str, Any] = {"who": failure.who, "step": failure.step, "kind": failure.kind, "cause": failure.cause}
    document |= {"message": str(failure.error()), "exit_code": exit_code(failure), "time": time.time()}
    try:
        write_json(run.failure, document)
    except OSError:
        return False
    return True


def exit_code(failure: FailureReport) -> int:
    """The exit code of a run that failed in this way."""
    return EXIT_CODES.get(failure.kind, EXIT_FAILED)


def read_failure(run: RunDir) -> dict[str, Any] | None:
    """The record that `write_failure` wrote; None if there is none, or the file holds anything else."""
    try:
        document = read_object(run.failure)
    except OSError:
        return None
    if document is None or not (isinstance(document.get("kind"), str) and isinstance(document.get("message"), str)):
        return None
    code = document.get("exit_code")
    return {**document, "exit_code": code if isinstance(code, int) else EXIT_FAILED}


def in_words(kind: str, message: str) -> str:
    """The line that the user reads."""
    return message if kind == "interrupted" else f"error: {message}"
