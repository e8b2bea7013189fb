"""Reads `metrics.jsonl` and `events.jsonl` of a run, which may still be running, or have been cut short by a crash.

The last line may be half a line: the process that wrote it was killed, or is writing it. That is said and the rest is
used. Anything else that cannot be read is damage, and an error that names the line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import UserError
from pipeline.ordinary_files import open_to_read
from workers.control.validation import MalformedMessage
from workers.observing.observer import Event

Parsed = TypeVar("Parsed")
MAX_LINE = 64 * 1024 * 1024
"""Bytes of a line; that of a step has a kilobyte a stage."""


def read_steps(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of `metrics.jsonl`, in their order.

    Args:
        path: of the file.

    Returns:
        One dictionary a step, with a whole number `step` of 0 or more, a finite `time` and a list `stages` of
        dictionaries, each with a whole number `stage`; and sentences about what was left out.

    Raises:
        UserError: there is no such file, or a line other than the last is not what a run writes.
    """
    notes: list[str] = []
    return list(each_step(path, notes)), notes


def each_step(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """As `read_steps`, one line at a time: a file may be larger than the memory; sentences are added to `notes`."""
    return _each(path, _step, notes)


def read_events(path: Path) -> tuple[list[Event], list[str]]:
    """The events of `events.jsonl`, as `read_steps`; a run in which nothing has happened has no such file."""
    notes: list[str] = []
    return list(_each(path, Event.from_json, notes)) if path.exists() else [], notes


def _each(path: Path, parse: Callable[[dict[str, Any]], Parsed], notes: list[str]) -> Iterator[Parsed]:
    for number, line in enumerate(_lines(path), 1):
        try:
            found = parse(_object(line))
        except (ValueError, OverflowError, RecursionError, MalformedMessage) as error:
            if not line.endswith(b"\n"):
                notes.append(f"the last line of {path.name}, number {number}, is cut short and left out")
                return
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"'{path}', line {number}: not what a run writes ({reason}). Remove the line if the others will do"
            ) from None
        yield found


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with open_to_read(path, path.parent) as file:
            while line := file.readline(MAX_LINE):
                yield line
    except FileNotFoundError:
        raise UserError(f"'{path}' does not exist. Give the folder of a run that has trained a step") from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}). Give the folder of a run") from None


def _object(line: bytes) -> dict[str, Any]:
    value = json.loads(line.decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _step(values: dict[str, Any]) -> dict[str, Any]:
    stages = values.get("stages")
    if not _whole(values.get("step")):
        raise ValueError("no valid 'step'")
    moment = values.get("time")
    if isinstance(moment, bool) or not isinstance(moment, int | float) or not math.isfinite(moment):
        raise ValueError("no valid 'time'")
    if not isinstance(stages, list) or not all(isinstance(one, dict) and _whole(one.get("stage")) for one in stages):
        raise ValueError("no valid 'stages'")
    return values


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
