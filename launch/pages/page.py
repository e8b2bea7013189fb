"""The page itself: one HTML file with everything in it, from the headline to the configuration."""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from launch.pages.charts import Picture
from launch.pages.colours import style_sheet, variables
from launch.pages.columns import Numbers, number
from launch.pages.inline import inline_svg
from launch.pages.look import STYLE
from launch.pages.reading import RunRecord
from launch.pages.tables import (
    MAX_EVENTS,
    evaluation_tables,
    event_table,
    last_known,
    loss_of,
    peak_memory,
    probe_table,
    stage_table,
    text,
)
from launch.pages.words import NOTHING, date_of, duration, percent, plain, size_of
from pipeline.config import Config
from pipeline.validation.loading import dump_without_secrets

NO_TRACE = (
    "This run was not traced. Train with <code>trace=true</code> to see here what every process did, step by step, and "
    "to get a trace for Perfetto; <code>trace.from_step</code> begins it later."
)
SHORT_TRACE = "The trace of this run does not have a step that every stage has finished."


def page(record: RunRecord, pictures: Sequence[Picture], folder: str = "report") -> str:
    """The report as HTML that asks for nothing from elsewhere; every text of the run in it is escaped.

    Args:
        record: the run.
        pictures: drawn in the light colours of `colours.variables`.
        folder: beside the page, in which the figures are.
    """
    colours = variables(stages_of(record))
    svgs = {p.key: inline_svg(p.figure, p.key, f"{p.title}. {p.caption}", colours) for p in pictures}
    title = text(name_of(record))
    body = "\n".join(_sections(record, pictures, svgs, folder))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{title} – Onward</title><link rel="icon" href="data:,">'
        f"<style>{style_sheet(colours)}{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def name_of(record: RunRecord) -> str:
    """That of its directory."""
    return record.run.path.resolve().name


def _sections(record: RunRecord, pictures: Sequence[Picture], svgs: dict[str, str], folder: str) -> Iterator[str]:
    yield _header(record)
    yield _tiles(record)
    if record.notes:
        notes = "".join(f"<li>{text(note)}</li>" for note in record.notes)
        yield f'<h2>Notes</h2><div class="card notes"><ul>{notes}</ul></div>'
    yield "<h2>Pipeline</h2>" + _pipeline(record, pictures, svgs)
    yield f'<h2>Stages</h2><div class="card">{stage_table(record)}{_legend()}</div>'
    cards = "".join(_card(p, svgs[p.key]) for p in pictures if not p.wide)
    yield f'<h2>Measurements</h2><div class="cards">{cards}</div>'
    if probes := probe_table(record.report):
        told = "Accuracy of a linear probe on the features of every block, in percent, and what training gained."
        yield f'<h2>Linear probe</h2><div class="card"><p class="quiet">{told}</p>{probes}</div>'
    if tables := evaluation_tables(record):
        yield f'<h2>Evaluation</h2><div class="card stack">{tables}</div>'
    yield f'<h2>Events and alarms</h2><div class="card">{_events(record)}</div>'
    yield f'<h2>What was run</h2><div class="card stack">{_facts(record)}{_configuration(record.config)}</div>'
    version = importlib.metadata.version("onward")
    figures = f"The figures are in the folder <code>{text(folder)}</code> beside it, as PNG and SVG."
    yield f"<footer>Made by onward {text(version)} on {date_of(time.time())}. {figures}</footer>"


def _header(record: RunRecord) -> str:
    config, outcome = record.config, record.outcome
    how = "in one process" if config.in_one_process else f"link {config.link.kind}"
    stages = "1 stage" if config.num_stages == 1 else f"{config.num_stages} stages"
    parts = [config.model.backbone, stages, config.objective.kind, config.mode, how]
    return (
        f'<header><div class="brand">Onward · report of a run</div><div class="top"><h1>{text(name_of(record))}</h1>'
        f'<span class="pill {outcome.word}">{outcome.word}</span></div>'
        f'<p class="quiet">{text(" · ".join(map(str, parts)))} · began {date_of(_first(record.series.time))}</p>'
        f"<p>{text(outcome.text)}</p></header>"
    )


def _tiles(record: RunRecord) -> str:
    series = record.series
    images = (
        float(np.nansum(series.images)) if np.isfinite(series.images).any() else number(record.report.get("images"))
    )
    rate = number(record.report.get("images_per_second"))
    rate = rate if math.isfinite(rate) else last_known(series.rate)
    pauses = _pauses(record)
    spent = last_known(series.time) - _first(series.time) - pauses
    tiles = [
        (plain(rate), "images a second"),
        (f"{series.count:,}", f"steps, {_epoch(record)}"),
        (f"{images:,.0f}" if math.isfinite(images) else NOTHING, "images"),
        (duration(spent), "from the first step to the last" + (", without pauses" if pauses else "")),
    ]
    if record.outcome.word == "running" and math.isfinite(left := last_known(series.eta)):
        tiles.append((duration(left), "left, after the last step"))
    cells = "".join(f'<div class="tile"><b>{text(value)}</b><span>{text(name)}</span></div>' for value, name in tiles)
    return f'<div class="tiles">{cells}{_stage_tiles(record)}</div>'


def _stage_tiles(record: RunRecord) -> str:
    stages = record.series.stages
    last = stages[max(stages)] if stages else None
    tiles = []
    if last is not None:
        tiles.append((loss_of(last), f"loss of stage {last.stage}, at last"))
        if math.isfinite(probe := last_known(last.groups["online"].get("linear"))):
            tiles.append((f"{percent(probe)} %", f"online probe of stage {last.stage}"))
        peaks = {stage.stage: peak_memory(stage) for stage in stages.values()}
        known = {stage: peak for stage, peak in peaks.items() if math.isfinite(peak)}
        if known:
            largest = max(known, key=lambda stage: known[stage])
            tiles.append((size_of(known[largest]), f"most memory, stage {largest}"))
    alarms, restarts = (sum(event.kind == kind for event in record.events) for kind in ("alarm", "restart"))
    tiles.append((f"{alarms} / {restarts}", "alarms / restarts"))
    return "".join(f'<div class="tile"><b>{value}</b><span>{text(name)}</span></div>' for value, name in tiles)


def _pauses(record: RunRecord) -> float:
    """Seconds from the last step of an attempt to when the next one began; 0 where there was one attempt."""
    times = record.series.time[np.isfinite(record.series.time)]
    found = 0.0
    for event in record.events:
        if event.kind == "restart" and event.stage is None:
            before = times[times < event.time]
            found += event.time - float(before[-1]) if before.size else 0.0
    return found


def _pipeline(record: RunRecord, pictures: Sequence[Picture], svgs: dict[str, str]) -> str:
    wide = [_card(picture, svgs[picture.key]) for picture in pictures if picture.wide]
    return "".join(wide) or f'<div class="card quiet">{SHORT_TRACE if record.parts else NO_TRACE}</div>'


def _card(picture: Picture, svg: str) -> str:
    kind = "card wide" if picture.wide else "card"
    return (
        f'<figure class="{kind}"><h3>{text(picture.title)}</h3><figcaption>{text(picture.caption)}</figcaption>'
        f'<div class="scroll">{svg}</div></figure>'
    )


def _events(record: RunRecord) -> str:
    if not record.events:
        return '<p class="quiet">Nothing: no alarm, no restart, no snapshot.</p>'
    more = len(record.events) - MAX_EVENTS
    told = f'<p class="quiet">The last {MAX_EVENTS}; {more} more are in events.jsonl.</p>' if more > 0 else ""
    return told + event_table(record.events)


def _facts(record: RunRecord) -> str:
    config, report = record.config, record.report
    digest = report.get("final_digest")
    facts = {
        "run": str(record.run.path),
        "outcome": f"{record.outcome.word}: {record.outcome.text}",
        "began": date_of(_first(record.series.time)),
        "last step": date_of(last_known(record.series.time)),
        "data": f"{config.data.name}, batches of {config.data.batch_size}",
        "seed": str(config.seed),
        "digest of the weights": digest if isinstance(digest, str) else NOTHING,
        "snapshots": ", ".join(path.name for path in _snapshots(record.run.snapshots)) or "none",
    }
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts.items()) + "</dl>"


def _configuration(config: Config) -> str:
    lines = "\n".join(text(line) for line in dump_without_secrets(config).splitlines())
    return f"<details><summary>Configuration</summary><pre>{lines}</pre></details>"


def _legend() -> str:
    return (
        '<p class="quiet">Computing, starved (waiting for input), blocked (waiting for room): shares of its time. '
        "Queue: batches that waited before it, on average. Memory: the most it had. Sent: to the next stage.</p>"
    )


def _snapshots(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name)) if folder.is_dir() else []


def stages_of(record: RunRecord) -> int:
    """Of the run; the metrics may name more than the configuration has, if they are not its own."""
    return max([record.config.num_stages, *record.series.stages])


def _epoch(record: RunRecord) -> str:
    epoch, train = last_known(record.series.epoch), record.config.train
    at = f"{epoch + 1:.0f}" if math.isfinite(epoch) else NOTHING
    return f"in epoch {at}" if train.max_steps is not None else f"to epoch {at} of {train.epochs}"


def _first(values: Numbers) -> float:
    known = values[np.isfinite(values)]
    return float(known[0]) if known.size else math.nan
