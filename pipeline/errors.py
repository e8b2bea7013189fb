"""Errors for users: what is wrong, where, what is allowed, what to do.

Every error that Onward raises on purpose derives from `OnwardError`. The command line turns a
`UserError` into exit code 2 (bad input) and a `TrainingError` into exit code 1 (the run failed);
neither is ever shown as a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class OnwardError(Exception):
    """Base of every error raised on purpose; its text holds no control characters."""

    def __str__(self) -> str:
        return printable(super().__str__())


class UserError(OnwardError):
    """Bad input: a file, folder, port or machine that the command cannot use."""


class ConfigError(UserError):
    """A key of the configuration that cannot be accepted.

    Args:
        path: dotted path of the key, for example `data.batch_size`.
        problem: what is wrong, with the value that was found.
        remedy: allowed values, or what to do.
    """

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        self.path, self.problem, self.remedy = path, problem, remedy
        super().__init__(f"{path}: {problem}. {remedy}" if path else f"{problem}. {remedy}")


class TrainingError(OnwardError):
    """A run that started and could not go on."""


class StageFailure(TrainingError):
    """A stage that raised, died or went silent.

    Args:
        who: the process in words, for example `stage 2`.
        step: the step it was working on, counted from 0; None if it is unknown.
        cause: one sentence.
    """

    def __init__(self, who: str, step: int | None, cause: str) -> None:
        self.who, self.step, self.cause = who, step, cause
        at_step = "" if step is None else f" at step {step}"
        super().__init__(f"{who} failed{at_step}: {cause}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out; PyTorch raises a `RuntimeError` for it."""
    text = str(error).lower()
    mentions_memory = any(
        words in text
        for words in (
            "not enough memory",
            "out of memory",
            "cannot allocate memory",
            "can't allocate memory",
            "status_alloc_failed",  # of cuBLAS and cuDNN, for their workspaces
        )
    )
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and mentions_memory)


def printable(text: str) -> str:
    r"""`text` with control and other unprintable characters escaped, as in `\x1b`; line breaks and tabs stay.

    Names of files, classes and processes may come from another user.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in text)


def did_you_mean(name: str, names: Iterable[str], most: int = 1) -> str:
    """The beginning of a remedy: `Did you mean 'x'? `, with up to `most` names like `name`; empty if none is."""
    close = get_close_matches(name, list(names), n=most, cutoff=0.5)
    return f"Did you mean {' or '.join(repr(other) for other in close)}? " if close else ""


def allowed_names(name: str, allowed: Iterable[str]) -> str:
    """A remedy: the name that was probably meant, and all that are allowed."""
    names = [str(item) for item in allowed]
    return f"{did_you_mean(str(name), names)}Allowed: {', '.join(names)}"


def first_line(error: BaseException) -> str:
    """An exception in one line: its type and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def reason_of(error: BaseException) -> str:
    """The first line of an exception's text, or its type where it has no text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
