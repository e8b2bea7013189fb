"""Traces for tests: parts of a pipeline that never ran, and everything that can be wrong with a trace."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from workers.observing.trace_part import Count, PartHeader, Slice, lines_of, new_part

MS = 1_000_000
Event = dict[str, Any]


def header(name: str, unit: int, stages: Sequence[int] = (), replica: int = 1, **more: Any) -> PartHeader:
    """Of a process that began at 0 of a clock that began in November 2023."""
    values = {"replicas": 1, "clock": "here", "offset": 1_700_000_000_000 * MS, "began": 0, **more}
    return PartHeader(name, unit, tuple(stages), replica, **values)


def write_part(folder: Path, head: PartHeader, events: Sequence[Slice | Count], tail: str = "") -> Path:
    with new_part(folder, head.name) as file:
        file.write(json.dumps(head.to_json()) + "\n")
        file.writelines(lines_of(events))
        file.write(tail)
    return Path(file.name)


def stage_events(stage: int, steps: range, first: int = 0) -> list[Slice | Count]:
    """A stage that begins step t after 100 t + 30 stage milliseconds; of its slices, the inner ones are told first."""
    track, events = f"stage {stage}", list[Slice | Count]()
    for step in steps:
        at = (first + 100 * step + 30 * stage) * MS
        events += [
            Slice(track, "receive", at - 2 * MS, 2 * MS, step),
            Slice(track, "view 1", at + MS, 8 * MS, step),
            Slice(track, "forward", at, 20 * MS, step),
            Slice(track, "send", at + 20 * MS, 4 * MS, step),
            Slice(track, "loss", at + 25 * MS, 10 * MS, step),
            Slice(track, "update", at + 24 * MS, 40 * MS, step),
            Count(track, "queue", at + 64 * MS, step % 3),
        ]
    return events


def feed_events(steps: range) -> list[Slice | Count]:
    return [Slice("feed", "send", (100 * step + 10) * MS, 9 * MS, step) for step in steps]


def write_pipeline(folder: Path, stages: int = 3, steps: int = 8) -> None:
    """Coordinator and `stages` processes that all end well."""
    write_part(folder, header("coordinator", -1), feed_events(range(steps)))
    for stage in range(1, stages + 1):
        events = [e for e in stage_events(stage, range(steps)) if stage < stages or e[1] != "send"]
        write_part(folder, header(f"stage {stage}", stage - 1, [stage]), events)


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def slices(document: dict[str, Any], name: str | None = None) -> list[Event]:
    return [e for e in document["traceEvents"] if e["ph"] == "X" and name in (None, e["name"])]


def process_names(document: dict[str, Any]) -> dict[int, str]:
    return {e["pid"]: e["args"]["name"] for e in document["traceEvents"] if e["name"] == "process_name"}


def arrows(document: dict[str, Any]) -> set[tuple[str, str, str, str, int]]:
    """Process and slice where an arrow starts, and where it ends, and the step."""
    names, found = process_names(document), dict[int, dict[str, Event]]()
    for event in document["traceEvents"]:
        if event["ph"] in ("s", "f"):
            found.setdefault(event["id"], {})[event["ph"]] = event
    return {
        (
            names[both["s"]["pid"]],
            _around(document, both["s"])["name"],
            names[both["f"]["pid"]],
            _around(document, both["f"])["name"],
            both["s"]["args"]["step"],
        )
        for both in found.values()
    }


def problems(document: dict[str, Any]) -> list[str]:
    """What a viewer would trip over."""
    events: list[Event] = document["traceEvents"]
    return [*_wrong_fields(events), *_wrong_nesting(events), *_wrong_arrows(document)]


def _wrong_fields(events: list[Event]) -> Iterator[str]:
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    processes = {e["pid"] for e in events if e["name"] == "process_name"}
    for event in events:
        kind = event["ph"]
        if kind not in ("X", "C", "M", "s", "f", "i"):
            yield f"unknown kind: {event}"
        if event["pid"] not in processes:
            yield f"a process without a name: {event}"
        if kind != "M" and not (isinstance(event["ts"], int) and event["ts"] >= 0):
            yield f"no time: {event}"
        if kind in ("X", "s", "f") and (event["pid"], event["tid"]) not in named:
            yield f"a thread without a name: {event}"
        if kind == "X" and not (isinstance(event["dur"], int) and event["dur"] >= 0):
            yield f"no duration: {event}"
        if kind == "C" and any(value < 0 for value in event["args"].values()):
            yield f"less than nothing: {event}"


def _wrong_nesting(events: list[Event]) -> Iterator[str]:
    threads: dict[tuple[int, int], list[Event]] = {}
    for event in events:
        if event["ph"] == "X":
            threads.setdefault((event["pid"], event["tid"]), []).append(event)
    for found in threads.values():
        for one, other in pairwise(found):
            if other["ts"] < one["ts"]:
                yield f"out of order: {one}, {other}"
        stack: list[Event] = []
        for event in found:
            while stack and _end(stack[-1]) <= event["ts"]:
                stack.pop()
            if stack and _end(event) > _end(stack[-1]):
                yield f"neither within nor after: {stack[-1]}, {event}"
            stack.append(event)


def _wrong_arrows(document: dict[str, Any]) -> Iterator[str]:
    ends: dict[int, list[Event]] = {}
    for event in document["traceEvents"]:
        if event["ph"] in ("s", "f"):
            ends.setdefault(event["id"], []).append(event)
            if _around(document, event)["args"]["step"] != event["args"]["step"]:
                yield f"bound to another step: {event}"
    for found in ends.values():
        if sorted(end["ph"] for end in found) != ["f", "s"]:
            yield f"not two ends: {found}"
        elif min(found, key=lambda end: end["ph"] == "f")["ts"] > max(end["ts"] for end in found):
            yield f"back in time: {found}"


def _around(document: dict[str, Any], end: Event) -> Event:
    """The slice that an end is bound to: of those that enclose it, the last to begin."""
    around = [
        e
        for e in document["traceEvents"]
        if e["ph"] == "X" and (e["pid"], e["tid"]) == (end["pid"], end["tid"]) and e["ts"] <= end["ts"] < _end(e)
    ]
    assert around, f"bound to nothing: {end}"
    return max(around, key=lambda e: (e["ts"], -e["dur"]))


def _end(event: Event) -> int:
    return int(event["ts"] + event["dur"])
