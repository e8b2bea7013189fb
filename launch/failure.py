"""What is left of a failed run for whoever reads it next: `failure.json`, and the exit code."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import Any

from launch.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, print_error
from workers.control.failures import FailureReport, RunFailed, failure_report
from workers.run.environment import PREPARED
from workers.run.files import RunDir, read_object, write_json

EXIT_CODES = {"bad_input": EXIT_BAD_INPUT, "interrupted": EXIT_INTERRUPTED}


class FailureRecorder:
    """Why a run has failed, which is written down once, and before anybody else is told: telling them may take long.

    Args:
        run: that it is about.
        who: runs it.
    """

    def __init__(self, run: RunDir, who: str) -> None:
        self._run, self._who = run, who
        self._code: int | None = None

    def failed(self, error: BaseException) -> int:
        """Take note of what has ended the run, unless that is known; returns the exit code."""
        if self._code is None:
            if isinstance(error, RunFailed):
                sign = error.sign
            else:
                logging.error("%s failed", self._who, exc_info=error)
                sign = failure_report(self._who, None, error)
            self._code = record_failure(self._run, sign)
        return self._code


def record_failure(run: RunDir, sign: FailureReport) -> int:
    """Write down the cause of a failed run, and say it unless the command line will; returns the exit code."""
    if not write_failure(run, sign):  # a full disk is a common cause
        print(in_words(sign.kind, str(sign.error())), flush=True)
    elif PREPARED not in os.environ:
        with suppress(OSError):
            print_error(in_words(sign.kind, str(sign.error())))
    return exit_code(sign)


def write_failure(run: RunDir, sign: FailureReport) -> bool:
    """Write down the cause of a failed run; whether that was possible."""
    said = {"message": str(sign.error()), "exit_code": exit_code(sign)}
    try:
        write_json(run.failure, {"who": sign.who, "step": sign.step, "kind": sign.kind, "cause": sign.cause, **said})
    except OSError:
        return False
    return True


def exit_code(sign: FailureReport) -> int:
    """What a run ends with that failed so."""
    return EXIT_CODES.get(sign.kind, EXIT_FAILED)


def read_failure(run: RunDir) -> dict[str, Any] | None:
    """What `record_failure` wrote; None if nothing failed, or somebody wrote something else."""
    try:
        found = read_object(run.failure)
    except OSError:
        return None
    if found is None or not (isinstance(found.get("kind"), str) and isinstance(found.get("message"), str)):
        return None
    code = found.get("exit_code")
    return {**found, "exit_code": code if isinstance(code, int) else EXIT_FAILED}


def in_words(kind: str, message: str) -> str:
    """The line that the user reads."""
    return message if kind == "interrupted" else f"error: {message}"
