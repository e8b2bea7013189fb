"""What earlier attempts of a run have left in its directory, for a page that shows the run from its first step.

A file of any size is taken up in bounded time: of a long one, lines at even distances. What cannot be read is left out;
it is the page's loss alone.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.ordinary_files import open_to_read
from workers.control.validation import MalformedMessage
from workers.observing.live.differences import STAGE_GROUPS
from workers.observing.observer import Event

WHOLE_BYTES = 8 * 1024 * 1024
"""A file up to this size is read whole."""
SAMPLES = 2048
"""Lines that are read of a larger one."""
MAX_LINE = 1024 * 1024
EVENTS_BYTES = 4 * 1024 * 1024
"""Of the end of `events.jsonl`."""


def sampled_steps(path: Path, before: int) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl` in the order of their steps, of steps less than `before`; none if there is no file."""
    found: list[dict[str, Any]] = []
    if not before:
        return found
    with suppress(OSError), open_to_read(path, path.parent) as file:
        for raw in _lines(file, os.fstat(file.fileno()).st_size):
            line = _object(raw)
            if line is not None and _is_step(line) and line["step"] < before:
                found.append(line)
    found.sort(key=lambda line: int(line["step"]))
    return found


def read_events(folder: Path, most: int) -> list[Event]:
    """The last events of the run in `folder`, at most so many; none if there is no file."""
    found: deque[Event] = deque(maxlen=most)
    path = folder / "events.jsonl"
    with suppress(OSError), open_to_read(path, folder) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(size - EVENTS_BYTES, 0))
        for raw in file.read(EVENTS_BYTES).splitlines():
            values = _object(raw)
            if values is not None:
                with suppress(MalformedMessage):
                    found.append(Event.from_json(values))
    return list(found)


def _lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    if size <= WHOLE_BYTES:
        yield from file.read(WHOLE_BYTES).splitlines()
        return
    end = 0
    for sample in range(SAMPLES):
        file.seek(max(sample * size // SAMPLES, end))
        if sample:
            file.readline(MAX_LINE)  # the rest of a line, most likely
        yield file.readline(MAX_LINE)
        end = file.tell()


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):  # cut off, or damaged
        return None
    return value if isinstance(value, dict) else None


def _is_step(line: dict[str, Any]) -> bool:
    """Whether it has what `History` cannot do without."""
    stages = line.get("stages")
    return (
        _is_count(line.get("step"))
        and isinstance(line.get("time"), int | float)
        and isfinite(line["time"])
        and isinstance(stages, list)
        and all(_is_stage(stage) for stage in stages)
    )


def _is_stage(value: object) -> bool:
    if not isinstance(value, dict) or not _is_count(value.get("stage")):
        return False
    return all(isinstance(value.get(group) or {}, dict) for group in STAGE_GROUPS)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
