"""A process that answers one question: it loads torch while this one does something else, and has a limit of time.

It may crash in code of the user's. One line of JSON goes in, and one comes out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

from pipeline.errors import UserError
from workers.run.environment import interpreter, process_environment
from workers.run.json_lines import last_answer, read_line, write_line


class AnswerProcess:
    """Starts the process at once, so that it loads while others work; a context manager, which ends it.

    Args:
        module: that it runs, whose `main` is `answer_one`.
        threads: of PyTorch's operations in it.
    """

    def __init__(self, module: str, threads: int = 1) -> None:
        self._process = subprocess.Popen(
            interpreter(module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=process_environment(threads),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()

    def ask(self, question: Mapping[str, Any], what: str, seconds: float) -> dict[str, Any]:
        """Its answer.

        Args:
            question: as JSON has it.
            what: is computed, for messages.
            seconds: limit of the wait.

        Raises:
            UserError: it has ended, or not answered in time.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):  # it has ended, which the answer will show
            write_line(self._process.stdin.fileno(), question)
        last = last_answer(self._process.stdout.fileno(), seconds, self._process.kill, self._process.wait)
        if last.message is None:
            why = f"it takes longer than {seconds:g} s" if last.late else "its process ended"
            raise UserError(f"{what} was not computed: {why}")
        return last.message


def answer_one(answer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Answer the one question on the standard input; what code of the user's prints goes nowhere."""
    answers = os.dup(1)
    os.dup2(2, 1)
    with suppress(EOFError, OSError):  # the parent needs no answer any more
        write_line(answers, answer(read_line(sys.stdin.fileno())))
