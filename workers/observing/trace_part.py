"""The part of a trace that one process writes: its format, writing and reading.

JSON lines. The first is an object with the process and its clock (`PartHeader`). Then come arrays:
`["X", track, name, start, duration, step]` for a slice of time, `["C", track, name, time, value]` for a counter, all
times whole nanoseconds of `time.monotonic`. An object `{"left_out": N}` has the number of events dropped so far.
"""

from __future__ import annotations

import io
import json
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from pipeline.ordinary_files import make_folder, open_to_read, open_to_write

FORMAT = "onward-trace-1"
COORDINATOR_UNIT = -1
MAX_TIME = 2**62
"""Nanoseconds, 146 years: times beyond it, or below 0, are damage."""
MAX_LINE = 4096
"""Characters; ours have less than a tenth of that."""
encoded = json.JSONEncoder(separators=(",", ":")).encode
"""Encoder without spaces; made once, because there are very many events."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Slice(NamedTuple):
    """A track was busy with `name` from `start` for `duration`, in nanoseconds; `step` is None before the first."""

    track: str
    name: str
    start: int
    duration: int
    step: int | None


class Count(NamedTuple):
    """At `time`, in nanoseconds, there were `value` of `name`."""

    track: str
    name: str
    time: int
    value: float


@dataclass(frozen=True)
class PartHeader:
    """The process that wrote a part.

    Args:
        name: of the process, such as `stage 2 replica 1`.
        unit: which group of stages it trains, from 0, in the order of the pipeline; -1 for the coordinator.
        stages: that it trains, counted from 1.
        replica: counted from 1.
        replicas: of its unit.
        clock: equal for processes that share `time.monotonic`: those of one host since it was booted.
        offset: `time.time` minus `time.monotonic` when the process began, in nanoseconds.
        began: when that was, in nanoseconds of `time.monotonic`.
    """

    name: str
    unit: int
    stages: tuple[int, ...]
    replica: int
    replicas: int
    _: KW_ONLY
    clock: str
    offset: int
    began: int

    @classmethod
    def of_this_process(
        cls, name: str, unit: int, stages: tuple[int, ...], replica: int = 1, replicas: int = 1
    ) -> PartHeader:
        """A header with the clock of this host and the current time."""
        now = time.monotonic_ns()
        return cls(name, unit, stages, replica, replicas, clock=_clock(), offset=time.time_ns() - now, began=now)

    def to_json(self) -> dict[str, Any]:
        """The first line."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, values: Any) -> PartHeader:
        """The inverse of `to_json`; raises `ValueError`."""
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(f"'format' is not '{FORMAT}'")
        kinds = {"name": str, "stages": list, "clock": str}
        if values.keys() != cls.__dataclass_fields__.keys():
            raise ValueError("it has other fields than a part of a trace")
        if not all(_is(values[key], kinds.get(key, int)) for key in values):
            raise ValueError("a field has a value of another kind")
        if not all(_is(stage, int) for stage in values["stages"]):
            raise ValueError("'stages' are not numbers")
        if not all(0 <= values[key] < MAX_TIME for key in ("offset", "began")):
            raise ValueError("a time is no time")
        if values["replica"] < 1 or values["replicas"] < values["replica"]:
            raise ValueError("'replica' is none of its replicas")
        return cls(**{**values, "stages": tuple(values["stages"])})


@dataclass
class Part:
    """The contents of a part.

    Args:
        header: its process.
        slices: sorted by start, enclosing ones first.
        counts: in the order in which they were written.
        left_out: number of dropped events.
        notes: problems of the file, one sentence each.
    """

    header: PartHeader
    slices: list[Slice] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    left_out: int = 0
    notes: list[str] = field(default_factory=list)


def part_paths(folder: Path) -> list[Path]:
    """The files of a trace, sorted by name and number; none if there is no folder."""
    return sorted(folder.glob("*.jsonl"), key=lambda path: [(len(part), part) for part in path.name.split(".")])


def new_part(folder: Path, name: str) -> TextIO:
    """Create a new file `NAME.N.jsonl`; raises `OSError`."""
    make_folder(folder, folder.parent)
    number = 1
    while True:
        path = folder / f"{name.replace(' ', '_')}.{number}.jsonl"
        try:
            return io.TextIOWrapper(open_to_write(path, folder.parent, new=True), encoding="utf-8")
        except FileExistsError:
            number += 1


def read_part(path: Path) -> Part:
    """Read a part. The incomplete last line of a killed process is skipped with a note.

    Raises:
        ValueError: it is no part of a trace.
        OSError: it cannot be read.
    """
    with open_to_read(path, path.parent.parent) as file:
        try:
            part = Part(PartHeader.from_json(json.loads(file.readline(MAX_LINE))))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"'{path.name}' is no part of a trace ({error})") from None
        bad, last_is_bad = 0, False
        for line in iter(lambda: file.readline(MAX_LINE), b""):
            last_is_bad = not _take(part, line)
            bad += last_is_bad
    if last_is_bad:
        bad -= 1
        part.notes.append(f"'{path.name}' ends within a line, which is left out: its process was killed")
    if bad:
        part.notes.append(f"{bad} lines of '{path.name}' are damaged and left out")
    part.slices.sort(key=lambda each: (each.start, -each.duration))
    return part


def read_parts(folder: Path) -> tuple[list[Part], list[str]]:
    """All parts that can be read, and notes about problems."""
    parts, notes = [], []
    for path in part_paths(folder):
        try:
            part = read_part(path)
        except (OSError, ValueError) as error:
            notes.append(f"the trace lacks a part: {error}")
            continue
        parts.append(part)
        notes += part.notes
    return parts, notes


def offsets(parts: Sequence[Part]) -> dict[str, int]:
    """By clock, the offset from its times to nanoseconds since 1970.

    One offset per clock, that of its earliest part, so that setting the time of day shifts nothing within a host. Times
    of different hosts agree as well as their times of day did when their first process began.
    """
    found: dict[str, int] = {}
    for part in sorted(parts, key=lambda each: each.header.began):
        found.setdefault(part.header.clock, part.header.offset)
    return found


def _take(part: Part, line: bytes) -> bool:
    """Add the contents of a line; False if it is malformed."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return False
    match values:
        case ["X", str(track), str(name), int(start), int(duration), int() | None as step] if (
            0 <= start < MAX_TIME and 0 <= duration < MAX_TIME
        ):
            part.slices.append(Slice(track, name, start, duration, step))
        case ["C", str(track), str(name), int(at), int() | float() as value] if (
            0 <= value < float("inf") and 0 <= at < MAX_TIME
        ):
            part.counts.append(Count(track, name, at, value))
        case {"left_out": int(count)}:
            part.left_out = count
        case _:
            return False
    return True


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _clock() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return platform.node()


def lines_of(events: Iterable[Slice | Count]) -> Iterator[str]:
    """As they are written."""
    for event in events:
        kind = "X" if isinstance(event, Slice) else "C"
        yield encoded([kind, *event]) + "\n"
