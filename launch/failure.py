"""What is left of a failed run for whoever reads it next: `failure.json`, and the exit code."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import Any

from launch.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED
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
                failure = error.failure
            else:
                logging.error("%s failed", self._who, exc_info=error)
                failure = failure_report(self._who, None, error)
            self._code = record_failure(self._run, failure)
        return self._code


def record_failure(run: RunDir, failure: FailureReport) -> int:
    """Write down the cause of a failed run, and say it unless the command line will; returns the exit code."""
    if not write_failure(run, failure):  # a full disk is a common cause
        print(in_words(failure.kind, str(failure.error())), flush=True)
    elif PREPARED not in os.environ:
        with suppress(OSError):
            print(in_words(failure.kind, str(failure.error())), file=sys.stderr)
    return exit_code(failure)


def write_failure(run: RunDir, failure: FailureReport) -> bool:
    """Write down the cause of a failed run; whether that was possible."""
    said = {"message": str(failure.error()), "exit_code": exit_code(failure)}
    try:
        write_json(
            run.failure,
            {"who": failure.who, "step": failure.step, "kind": failure.kind, "cause": failure.cause, **said},
        )
    except OSError:
        return False
    return True


def exit_code(failure: FailureReport) -> int:
    """What a run ends with that failed so."""
    return EXIT_CODES.get(failure.kind, EXIT_FAILED)


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
