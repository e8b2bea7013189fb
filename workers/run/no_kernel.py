"""An operation that has no deterministic kernel: recognises what PyTorch says of it, and puts it in words.

`determinism.level=strict` lets PyTorch raise at such an operation, `warn` lets it warn. The command line imports this
file, and must not import torch.
"""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, TextIO

from pipeline.config import Config
from pipeline.errors import ConfigError

KEY = "determinism.level"
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable without which cuBLAS is not deterministic."""
BY_CUBLAS = "CuBLAS"
"""Stands for the products of matrices, which that variable makes deterministic."""
_SENTENCES = (
    re.compile(r"(\w+) does not have a deterministic implementation"),
    re.compile(r"((?:Flash|Memory Efficient|cuDNN) [Aa]ttention) defaults to a non-deterministic algorithm"),
    re.compile(rf"not deterministic because it uses ({BY_CUBLAS}).*{CUBLAS}", re.DOTALL),
)
_ANY = f"(?is).*({'|'.join(sentence.pattern for sentence in _SENTENCES)})"


def operation_of(text: str) -> str | None:
    """The operation that an error or a warning of PyTorch's says has no deterministic kernel; None for any other."""
    matches = (sentence.search(text) for sentence in _SENTENCES)
    return next((found[1] for found in matches if found), None)


def strict_refusal(error: BaseException, place: str) -> ConfigError | None:
    """What to tell the user of an error that `strict` has caused; None for any other error.

    Args:
        error: with its traceback, which names the module if it was raised in a forward pass.
        place: where it was raised, for example `stage 2 at step 0`; empty if unknown.
    """
    if not isinstance(error, RuntimeError) or (operation := operation_of(str(error))) is None:
        return None
    if operation == BY_CUBLAS:
        problem = f"'strict' needs the environment variable {CUBLAS} to be ':4096:8' or ':16:8'"
        return ConfigError(KEY, problem, "Unset it, or set it to one of these")
    return refusal_of(named(operation, module_of(error)), place)


def refusal_of(operation: str, place: str, setting: str = "") -> ConfigError:
    """The same for a known operation.

    Args:
        operation: with its module.
        place: where it is; empty if unknown.
        setting: an override that avoids it, if there is one.
    """
    problem = f"{place}{': ' if place else ''}{operation} has no deterministic kernel on this device"
    remedy = f"With {setting} it is not used. Give that" if setting else "Replace it"
    return ConfigError(KEY, problem, f"{remedy}, or {KEY}=warn to use it in a run whose bits are not promised")


def no_promise(config: Config) -> str | None:
    """A sentence about the bits of a run that promises none from the start; None for others."""
    if config.determinism.level != "off":
        return None
    return f"{KEY}=off: kernels are chosen for speed, and the bits of this run are not promised, nor after a snapshot"


def named(operation: str, module: str) -> str:
    """An operation with the dotted path of its module, if that is known."""
    return f"{operation} of {module}" if module else operation


def module_of(error: BaseException) -> str:
    """The dotted path, in its stage, of the module in whose forward pass an error was raised; empty if in none."""
    return _place_of(frame for frame, _ in traceback.walk_tb(error.__traceback__))[1]


def note_operations(note: Callable[[str], object]) -> None:
    """From now on `note` gets a sentence about each operation without a deterministic kernel, once, instead of the log.

    Args:
        note: called by the thread that computes, or that has started the backward pass.
    """
    seen: set[str] = set()
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        operation = operation_of(str(message))
        if operation is None:
            before(message, category, filename, lineno, file, line)
        elif operation not in seen:
            seen.add(operation)
            stage, module = _place_of(reversed(list(_callers(sys._getframe(1)))))
            subject = f"{f'stage {stage}: ' if stage else ''}{named(operation, module)}"
            note(f"{subject} has no deterministic kernel here: the bits of this run are not promised ({KEY}=warn)")

    warnings.showwarning = show
    warnings.filterwarnings("always", message=_ANY)


def _callers(frame: FrameType | None) -> Iterable[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _place_of(frames: Iterable[FrameType]) -> tuple[int, str]:
    """The stage that computes, 0 if none does, and the path in it of the innermost module; empty if in none.

    Args:
        frames: the outermost first. That of a method has the module, or the stage, as `self`.
    """
    from torch.nn import Module

    selves: list[Any] = [frame.f_locals.get("self") for frame in frames]
    modules = [each for each in selves if isinstance(each, Module)]
    if not modules:
        return 0, ""
    paths = {part: name for name, part in modules[0].named_modules()}
    stage = getattr(modules[0], "index", 0)
    return stage, next((paths[each] for each in reversed(modules) if each in paths), "")
