"""The one reader of a run's `metrics.jsonl` and `events.jsonl`, while it trains, after it, or after a crash.

    each_step, read_events        for a report: all lines, one at a time; damage is an error that names the line
    sampled_steps, last_events    for the live page: bounded time whatever the size; damage is left out
    first_and_last_step           for a list of many runs: two lines, whatever the size
    drop_steps, drop_damage       for a run that goes on from a snapshot: removes later and damaged lines from the file

The last line may be incomplete, when its writer was killed or is still writing. Readers for a report skip it with a
note. Lines of earlier versions lack `added`, which is filled in here.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pipeline.errors import UserError
from pipeline.ordinary_files import open_to_read
from workers.control.validation import MalformedMessage
from workers.observing.amounts import MissingAmounts, finite
from workers.observing.observer import Event
from workers.run.files import write_parts

Parsed = TypeVar("Parsed")
MAX_LINE = 64 * 1024 * 1024
"""Bytes per line; the line of a step has about a kilobyte per stage."""
WHOLE_BYTES = 8 * 1024 * 1024
"""A file up to this size is read whole for the live page."""
SAMPLES = 2048
"""Number of lines, evenly spaced, that are read of a larger file."""
EVENTS_BYTES = 4 * 1024 * 1024
"""Length of the end of `events.jsonl` that the live page reads."""
LAST_BYTES = 1024 * 1024
"""Length of the end of `metrics.jsonl` in which its last line is looked for."""
UNREADABLE = (ValueError, OverflowError, RecursionError, MalformedMessage)


def each_step(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The lines of `metrics.jsonl`, one at a time, because a file may be larger than the memory.

    Args:
        path: of the file.
        notes: gets a sentence for each line that is skipped.

    Yields:
        One dictionary per step, with a whole number `step` of 0 or more, a finite `time`, a list `stages` of
        dictionaries, each with a whole number `stage`, and `added` in it and in each stage.

    Raises:
        UserError: there is no such file, or a line other than the last is not what a run writes.
    """
    missing = MissingAmounts()
    return (missing.fill(line) for line in _each(path, _step, notes))


def read_events(path: Path) -> tuple[list[Event], list[str]]:
    """The events of `events.jsonl`, and notes, as `each_step`; a run without events has no such file."""
    notes: list[str] = []
    return list(_each(path, Event.from_json, notes)) if path.exists() else [], notes


def sampled_steps(path: Path, before: int) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl` as in `each_step`, of steps below `before`, sorted by step.

    Of a long file, evenly spaced lines; their `added` then covers the steps since the line before.
    """
    found: list[dict[str, Any]] = []
    if not before:
        return found
    with suppress(OSError), open_to_read(path, path.parent) as file:
        size = os.fstat(file.fileno()).st_size
        for raw in _sampled(file, size) if size > WHOLE_BYTES else file.read(WHOLE_BYTES).splitlines():
            with suppress(*UNREADABLE):
                if (line := _step(_object(raw)))["step"] < before:
                    found.append(line)
        found.sort(key=lambda line: int(line["step"]))
        missing = MissingAmounts(apart=size > WHOLE_BYTES)
        return [missing.fill(line) for line in found]
    return found


def first_and_last_step(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The first and the last whole line of `metrics.jsonl`, as `each_step`; None if there is none.

    A last line longer than `LAST_BYTES` is not found.
    """
    with suppress(OSError), open_to_read(path, path.parent) as file:
        first = _line_of(file.readline(MAX_LINE))
        file.seek(max(os.fstat(file.fileno()).st_size - LAST_BYTES, 0))
        lines = map(_line_of, reversed(file.read(LAST_BYTES).splitlines(keepends=True)))
        last = next((line for line in lines if line is not None), None)
        return None if first is None or last is None else (first, last)
    return None


def _line_of(raw: bytes) -> dict[str, Any] | None:
    if raw.endswith(b"\n"):
        with suppress(*UNREADABLE):
            return _step(_object(raw))
    return None


def last_events(path: Path, most: int) -> list[Event]:
    """The last events of `events.jsonl`, at most so many; none if there is no file."""
    found: deque[Event] = deque(maxlen=most)
    with suppress(OSError), open_to_read(path, path.parent) as file:
        file.seek(max(os.fstat(file.fileno()).st_size - EVENTS_BYTES, 0))
        for raw in file.read(EVENTS_BYTES).splitlines():
            with suppress(*UNREADABLE):
                found.append(Event.from_json(_object(raw)))
    return list(found)


def drop_steps(path: Path, start: int, seen: Callable[[dict[str, Any]], None] = lambda line: None) -> None:
    """Leave only lines of `metrics.jsonl` of steps before `start`, of all that are whole; raises `OSError`.

    Args:
        path: of the file.
        start: the first step that is not kept.
        seen: called with every line that `each_step` would give, kept or not.
    """

    def wanted(values: dict[str, Any]) -> bool:
        kept = int(values["step"]) < start
        with suppress(*UNREADABLE):
            seen(_step(values))
        return kept

    _keep(path, wanted)


def drop_damage(path: Path, seen: Callable[[Event], None] = lambda event: None) -> None:
    """Leave only lines of `events.jsonl` that can be read, and call `seen` with each; raises `OSError`."""

    def wanted(values: dict[str, Any]) -> bool:
        seen(Event.from_json(values))
        return True

    _keep(path, wanted)


def _keep(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite a file line by line: a long run has gigabytes of lines."""

    def kept(line: bytes) -> bool:
        try:
            return wanted(_object(line))
        except (*UNREADABLE, KeyError, TypeError):
            return False

    if path.is_file():
        with open_to_read(path, path.parent) as file:
            lines = (line for line in iter(lambda: file.readline(MAX_LINE), b"") if kept(line))
            write_parts(path, (line.removesuffix(b"\n") + b"\n" for line in lines))


def _each(path: Path, parse: Callable[[dict[str, Any]], Parsed], notes: list[str]) -> Iterator[Parsed]:
    for number, line in enumerate(_lines(path), 1):
        try:
            found = parse(_object(line))
        except UNREADABLE as error:
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


def _sampled(file: BinaryIO, size: int) -> Iterator[bytes]:
    end = 0
    for sample in range(SAMPLES):
        file.seek(max(sample * size // SAMPLES, end))
        if sample:
            file.readline(MAX_LINE)  # the rest of a line, most likely
        yield file.readline(MAX_LINE)
        end = file.tell()


def _object(line: bytes) -> dict[str, Any]:
    value = json.loads(line.decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _step(values: dict[str, Any]) -> dict[str, Any]:
    stages = values.get("stages")
    if not _whole(values.get("step")):
        raise ValueError("no valid 'step'")
    if finite(values.get("time")) is None:
        raise ValueError("no valid 'time'")
    if not isinstance(stages, list) or not all(isinstance(one, dict) and _whole(one.get("stage")) for one in stages):
        raise ValueError("no valid 'stages'")
    return values


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
