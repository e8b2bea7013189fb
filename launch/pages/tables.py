"""The tables of a report; a cell is text unless it is `Markup`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from launch.pages.number_format import NOTHING, date_of, percent, plain, size_of
from launch.pages.run_record import RunRecord
from launch.pages.series import Numbers, StageSeries, last_known, number
from launch.results.grid import Grid
from workers.observing.observer import TIMES, Event
from workers.observing.standard_error import MARK, error_range, may_be_chance, tested_on

MAX_EVENTS = 200
"""Maximum number of events that are listed, the last ones; `events.jsonl` has all."""
NOT_FINITE = Markup('<b class="failed">not finite</b>')
_MARK = Markup('<i class="dot" style="background:var(--stage-{})"></i>{}')
_TAG = Markup('<span class="tag {}">{}</span>')


def stage_table(record: RunRecord) -> Grid:
    """Results of every stage, one row each."""
    stages = list(record.series.stages.values())
    measures = [name for name in ("linear", "knn") if any(name in stage.groups["online"] for stage in stages)]
    names = {"linear": "probe, %", "knn": "k-NN, %"}
    head = ["stage", "units", "loss", *(names[name] for name in measures), "computing, %", "starved, %", "blocked, %"]
    used = _utilisation(record.report)
    head += ["copying, %", *(["TFLOP/s", "of peak, %"] if used else []), "queue", "memory", "sent", "skipped"]
    rows = []
    for stage in stages:
        shares, units = stage.shares(), _units(record, stage.stage)
        online = [percent(last_known(stage.groups["online"].get(name))) for name in measures]
        loss = "frozen" if record.config.is_frozen(stage.stage) else loss_of(stage)
        row = [_stage_mark(stage.stage), units, loss, *online]
        row += [percent(shares[name]) for name in TIMES]
        if used:
            rate, share = used.get(stage.stage, (math.nan, math.nan))
            row += [plain(rate), percent(share)]
        row += [
            _two(_mean(stage.values["queue_depth"])),
            size_of(peak_memory(stage)),
            size_of(stage.total("link_bytes")),
        ]
        rows.append([*row, plain(stage.total("skipped"))])
    return _grid(head, rows, keys=2)


def loss_of(stage: StageSeries) -> str:
    """The last loss, or `not finite`; never an earlier number."""
    return NOT_FINITE if stage.loses else plain(stage.last("loss"))


def event_table(events: Sequence[Event]) -> Grid:
    """The last `MAX_EVENTS` events, in order."""
    rows = [
        (
            _TAG.format(event.kind, event.kind),
            event.text,
            str(event.stage or NOTHING),
            NOTHING if event.step is None else f"{event.step:,}",
            date_of(event.time),
        )
        for event in events[-MAX_EVENTS:]
    ]
    return _grid(("kind", "what", "stage", "step", "when"), rows, keys=2)


def probe_table(report: dict[str, Any]) -> Grid | None:
    """The quick linear probe that a run ends with, before and after training: a row per block; None without one.

    A gain that may be chance has a mark.
    """
    before, after = report.get("untrained"), report.get("trained")
    if not (isinstance(before, list) and isinstance(after, list) and len(before) == len(after) and after):
        return None
    rows, images = [], tested_on(report)
    for index, (old, new) in enumerate(zip(before, after, strict=True), 1):
        if not (isinstance(old, dict) and isinstance(new, dict)):
            return None
        row = [_stage_mark(index)]
        for name in ("trunk", "expansion"):
            then, now = number(old.get(name)), number(new.get(name))
            gain = f"{100 * (now - then):+.1f}" if math.isfinite(now - then) else NOTHING
            doubtful = images is not None and math.isfinite(now - then) and may_be_chance(then, now, images)
            row += [percent(then), percent(now), f"{MARK}{gain}" if doubtful else gain]
        rows.append(row)
    names = (f"{name} {when}" for name in ("trunk", "expansion") for when in ("before", "after", "gain"))
    return _grid(("block", *names), rows)


def exactness(report: dict[str, Any]) -> str:
    """A sentence about the standard error of the probes; empty where it is not known."""
    images, rows = tested_on(report), [*report.get("untrained", ()), *report.get("trained", ())]
    shares = [number(row.get(name)) for row in rows if isinstance(row, dict) for name in ("trunk", "expansion")]
    known = [share for share in shares if math.isfinite(share)]
    if images is None or not known:
        return ""
    errors = f"{error_range(known, images)} points on {images:,} test images"
    return f"One standard error is {errors}; {MARK} marks a gain within two of its own."


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]], keys: int = 1) -> Grid:
    return Grid("", tuple((name,) for name in head), tuple(tuple(row) for row in rows), keys)


def _units(record: RunRecord, stage: int) -> str:
    """The first and last unit that a stage trains."""
    blocks = record.config.model.blocks()
    units = blocks[stage - 1] if stage <= len(blocks) else []
    return " to ".join(dict.fromkeys((units[0], units[-1]))) if units else NOTHING


def _stage_mark(stage: int) -> str:
    return _MARK.format(stage, stage)


def _utilisation(report: dict[str, Any]) -> dict[int, tuple[float, float]]:
    """Of every stage, TFLOP/s and their share of the peak of its device, where `report.json` has them."""
    found = report.get("stages")
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    used = {row.get("stage"): (number(row.get("flops_per_second")) / 1e12, number(row.get("mfu"))) for row in rows}
    return {stage: pair for stage, pair in used.items() if isinstance(stage, int) and math.isfinite(pair[0])}


def _mean(values: Numbers) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def _two(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else NOTHING


def peak_memory(stage: StageSeries) -> float:
    """Peak of the GPU's memory if it uses one, else of its process."""
    cuda, own = (stage.values[name][np.isfinite(stage.values[name])] for name in ("cuda_bytes", "memory_bytes"))
    values = cuda if cuda.size and cuda.max() > 0 else own
    return float(values.max()) if values.size else math.nan
