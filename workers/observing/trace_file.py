"""Joins all parts into one file in Chrome's trace event format, for Perfetto and chrome://tracing.

"Trace Event Format", Google 2016: `X` are slices, `C` counters, `i` moments, `M` names, `s` and `f` the two ends of an
arrow. Every process of the run is a process of the trace and every stage a thread of it, in the order of the pipeline.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from pipeline.ordinary_files import open_to_write
from workers.observing.trace_flows import Ends, arrows
from workers.observing.trace_part import Part, PartHeader, encoded, offsets, part_paths, read_parts
from workers.run.files import RunDir, temporary_of
from workers.topology.processes import stage_name

LARGE_BYTES = 24 * 1024 * 1024
"""Size of all parts together from which the trace, about twice as large, is compressed."""
TRACKS = 1000
"""More than a process has, so that thread ids are unique over all processes, which some viewers need."""
Event = dict[str, Any]
Process = tuple[int, int, str]
"""Unit, replica and name: a restarted process stays the same process of the trace."""


def merge_trace(run: RunDir) -> list[str]:
    """Write `trace.json`, or `trace.json.gz` if it is large, from what the processes of a run have recorded so far.

    Returns:
        Notes for the user, one sentence each; none if nothing was recorded. Never raises, because a trace must not make
        a run fail.
    """
    parts, notes = read_parts(run.trace)
    if not parts:
        return notes
    packed = _packed(run)
    try:
        large = sum(path.stat().st_size for path in part_paths(run.trace)) > LARGE_BYTES
        path, other = (packed, run.merged_trace) if large else (run.merged_trace, packed)
        _write(path, parts)
        other.unlink(missing_ok=True)
    except OSError as error:
        return [*notes, f"no trace: '{error.filename or run.merged_trace}' cannot be written ({error.strerror})"]
    events = sum(len(part.slices) + len(part.counts) for part in parts)
    notes.append(f"trace of {events:,} events in {path}: open it at https://ui.perfetto.dev or in chrome://tracing")
    if missing := _left_out(parts):
        names = ", ".join(f"{count:,} of {name}" for name, count in missing.items())
        notes.append(
            f"the trace lacks later events ({names}): a process keeps trace.max_events of them. Give more, or a later "
            "trace.from_step"
        )
    return notes


def is_merged(run: RunDir) -> bool:
    """Whether there is a joined trace that is newer than all parts."""
    try:
        newest = max((path.stat().st_mtime_ns for path in part_paths(run.trace)), default=0)
        return any(path.is_file() and path.stat().st_mtime_ns >= newest for path in (run.merged_trace, _packed(run)))
    except OSError:  # a file was removed meanwhile
        return False


def _packed(run: RunDir) -> Path:
    return run.merged_trace.with_name(run.merged_trace.name + ".gz")


def trace_events(parts: Sequence[Part]) -> Iterator[Event]:
    """All events of a trace, names first; times in whole microseconds since the first process began.

    Rounding down keeps nested slices nested.
    """
    shift = offsets(parts)
    origin = min(_began(part, shift) for part in parts)
    processes, threads = _numbers(parts)
    ends = arrows(parts, shift)
    yield from _names(processes, threads)
    for number, part in enumerate(parts):
        process = _process(part.header)
        mine = {track: thread for (owner, track), thread in threads.items() if owner == process}
        moved = shift[part.header.clock] - origin
        began = (_began(part, shift) - origin) // 1000
        yield {"ph": "i", "s": "p", "name": "process begins", "pid": processes[process], "tid": 0, "ts": began}
        yield from _slices(part, number, processes[process], mine, moved, ends)
        for count in part.counts:
            name = f"{count.name}, {count.track}"
            at = (count.time + moved) // 1000
            yield {"ph": "C", "name": name, "pid": processes[process], "ts": at, "args": {"batches": count.value}}


def _slices(part: Part, number: int, process: int, threads: dict[str, int], moved: int, ends: Ends) -> Iterator[Event]:
    """Slices in order, each followed by the ends of its arrows, which bind to the preceding enclosing slice."""
    for each in part.slices:
        start, end = (each.start + moved) // 1000, (each.start + each.duration + moved) // 1000
        where: Event = {"pid": process, "tid": threads[each.track], "ts": start}
        if each.step is not None:
            where["args"] = {"step": each.step}
        yield {"ph": "X", "name": each.name, "cat": "onward", **where, "dur": end - start}
        for kind, arrow in ends.get((number, each), ()):
            bound = {"bp": "e"} if kind == "f" else {}
            yield {"ph": kind, "name": "batch", "cat": "batch", "id": arrow, **where, **bound}


def _process(header: PartHeader) -> Process:
    return header.unit, header.replica, header.name


def _began(part: Part, shift: dict[str, int]) -> int:
    first = min([part.header.began, *(each.start for each in part.slices[:1])])
    return first + shift[part.header.clock]


def _numbers(parts: Sequence[Part]) -> tuple[dict[Process, int], dict[tuple[Process, str], int]]:
    """Names of processes, in the order of the pipeline, and of their tracks, stages last."""
    processes = {process: number for number, process in enumerate(sorted({_process(p.header) for p in parts}), 1)}
    threads: dict[tuple[Process, str], int] = {}
    for process, number in processes.items():
        mine = [part for part in parts if _process(part.header) == process]
        found = {s.track for part in mine for s in part.slices} | {c.track for part in mine for c in part.counts}
        stages = [stage_name(stage) for stage in sorted({stage for part in mine for stage in part.header.stages})]
        tracks = [*sorted(found - set(stages)), *stages]
        threads |= {(process, track): number * TRACKS + index for index, track in enumerate(tracks, 1)}
    return processes, threads


def _names(processes: dict[Process, int], threads: dict[tuple[Process, str], int]) -> Iterator[Event]:
    for process, number in processes.items():
        where: Event = {"ph": "M", "pid": number, "tid": 0}
        yield {**where, "name": "process_name", "args": {"name": process[2]}}
        yield {**where, "name": "process_sort_index", "args": {"sort_index": number}}
    for (process, track), number in threads.items():
        where = {"ph": "M", "pid": processes[process], "tid": number}
        yield {**where, "name": "thread_name", "args": {"name": track}}
        yield {**where, "name": "thread_sort_index", "args": {"sort_index": number}}


def _write(path: Path, parts: Sequence[Part]) -> None:
    """Write the whole document, one event per line, through a temporary file."""
    temporary = temporary_of(path)
    temporary.unlink(missing_ok=True)
    try:
        with _text_file(temporary, packed=path.suffix == ".gz") as file:
            file.write(f'{{"displayTimeUnit":"ms","otherData":{json.dumps(_about(parts))},"traceEvents":[\n')
            for index, event in enumerate(trace_events(parts)):
                file.write((",\n" if index else "") + encoded(event))
            file.write("\n]}\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _text_file(path: Path, packed: bool) -> Iterator[TextIO]:
    """A new temporary file in a run directory."""
    with open_to_write(path, path.parent, new=True) as plain:
        whole = gzip.GzipFile("", "wb", 6, plain) if packed else plain
        with whole, io.TextIOWrapper(whole, encoding="utf-8") as file:
            yield file


def _about(parts: Sequence[Part]) -> dict[str, Any]:
    """How the clocks of the processes were aligned."""
    shift = offsets(parts)
    began = datetime.fromtimestamp(min(_began(part, shift) for part in parts) / 1e9).astimezone()
    clocks = "one clock, exact"
    if len(shift) > 1:
        clocks = f"{len(shift)} clocks, joined by the time of day: between them, times are as exact as that"
    return {"began": began.isoformat(), "clocks": clocks, "left_out": _left_out(parts)}


def _left_out(parts: Sequence[Part]) -> dict[str, int]:
    """Events that were not kept, by process."""
    return {part.header.name: part.left_out for part in parts if part.left_out}
