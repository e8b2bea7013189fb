"""The tables of a report as HTML; every text of the run is escaped here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from launch.pages.columns import Numbers, number
from launch.pages.reading import RunRecord
from launch.pages.series import StageSeries
from launch.pages.words import NOTHING, date_of, percent, plain, size_of
from launch.results.evaluation_tables import grids_of, keys_of
from launch.results.grid import Grid
from launch.results.measure_names import clean
from workers.observing.observer import TIMES, Event

MAX_EVENTS = 200
"""That are listed, the last ones; `events.jsonl` has all."""


def text(value: str) -> str:
    """A text of the run as HTML: no markup, and nothing that cannot be seen."""
    return escape(clean(value))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table of finished cells.

    Args:
        head: of every column, as HTML.
        rows: cells, as HTML.
        left: so many columns, from the left, hold words; the others numbers.
    """

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = ("" if index < left else ' class="n"' for index in range(len(cells)))
        return (
            "<tr>" + "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)) + "</tr>"
        )

    body = "\n".join(line("td", row) for row in rows)
    return f'<div class="scroll"><table><thead>{line("th", head)}</thead>\n<tbody>{body}</tbody></table></div>'


def stage_table(record: RunRecord) -> str:
    """What became of every stage, in a line each."""
    stages = list(record.series.stages.values())
    measures = [name for name in ("linear", "knn") if any(name in stage.groups["online"] for stage in stages)]
    names = {"linear": "probe, %", "knn": "k-NN, %"}
    head = ["stage", "units", "loss", *(names[name] for name in measures), "computing, %", "starved, %", "blocked, %"]
    head += ["queue", "memory", "sent", "skipped"]
    rows = []
    for stage in stages:
        shares, units = stage.shares(), _units(record, stage.stage)
        online = [percent(last_known(stage.groups["online"].get(name))) for name in measures]
        row = [_stage_mark(stage.stage), text(units), loss_of(stage), *online]
        row += [percent(shares[name]) for name in TIMES]
        row += [
            _two(_mean(stage.values["queue_depth"])),
            size_of(peak_memory(stage)),
            size_of(stage.total("link_bytes")),
        ]
        rows.append([*row, plain(stage.last("skipped"))])
    return table(head, rows, left=2)


def loss_of(stage: StageSeries) -> str:
    """The last loss, as HTML; what is not finite is no number of earlier."""
    return '<b class="failed">not finite</b>' if stage.loses else plain(stage.last("loss"))


def event_table(events: Sequence[Event]) -> str:
    """What happened beside the steps, the last `MAX_EVENTS` of it, in order."""
    rows = [
        (
            f'<span class="tag {event.kind}">{text(event.kind)}</span>',
            text(event.text),
            str(event.stage or NOTHING),
            NOTHING if event.step is None else f"{event.step:,}",
            date_of(event.time),
        )
        for event in events[-MAX_EVENTS:]
    ]
    return table(("kind", "what", "stage", "step", "when"), rows, left=2)


def probe_table(report: dict[str, Any]) -> str:
    """The quick linear probe that a run ends with, before and after training: a line a block; empty without one."""
    before, after = report.get("untrained"), report.get("trained")
    if not (isinstance(before, list) and isinstance(after, list) and len(before) == len(after) and after):
        return ""
    rows = []
    for index, (old, new) in enumerate(zip(before, after, strict=True), 1):
        if not (isinstance(old, dict) and isinstance(new, dict)):
            return ""
        row = [_stage_mark(index)]
        for name in ("trunk", "expansion"):
            then, now = number(old.get(name)), number(new.get(name))
            gain = f"{100 * (now - then):+.1f}" if math.isfinite(now - then) else NOTHING
            row += [percent(then), percent(now), gain]
        rows.append(row)
    names = (f"{name} {when}" for name in ("trunk", "expansion") for when in ("before", "after", "gain"))
    return table(("block", *names), rows)


def evaluation_tables(record: RunRecord) -> str:
    """Those that `onward evaluate` prints."""
    if record.evaluation is None:
        return ""
    notes = "".join(f'<p class="quiet">{text(line)}</p>' for line in keys_of(record.evaluation))
    return "".join(_grid(grid) for grid in grids_of(record.evaluation)) + notes


def _grid(grid: Grid) -> str:
    head = [" ".join(text(word) for word in words) for words in grid.head]
    rows = [[text(cell) for cell in row] for row in grid.rows]
    return f"<h3>{text(grid.title)}</h3>{table(head, rows, left=grid.keys)}"


def _units(record: RunRecord, stage: int) -> str:
    """First and last of the units that a stage trains."""
    blocks = record.config.model.blocks()
    units = blocks[stage - 1] if stage <= len(blocks) else []
    return " to ".join(dict.fromkeys((units[0], units[-1]))) if units else NOTHING


def _stage_mark(stage: int) -> str:
    return f'<i class="dot" style="background:var(--stage-{stage})"></i>{stage}'


def last_known(values: Numbers | None) -> float:
    """The last number that there is; NaN if there is none."""
    known = values[np.isfinite(values)] if values is not None else np.array([])
    return float(known[-1]) if known.size else math.nan


def _mean(values: Numbers) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def _two(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else NOTHING


def peak_memory(stage: StageSeries) -> float:
    """Of memory on the GPU where it uses one, else of the process."""
    cuda, own = (stage.values[name][np.isfinite(stage.values[name])] for name in ("cuda_bytes", "memory_bytes"))
    values = cuda if cuda.size and cuda.max() > 0 else own
    return float(values.max()) if values.size else math.nan
