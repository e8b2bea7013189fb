"""The page: the values that fill `templates/report.html`."""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from launch.pages.charts import Picture
from launch.pages.colours import variables
from launch.pages.inline import inline
from launch.pages.number_format import NOTHING, date_of, duration, percent, plain, size_of
from launch.pages.run_record import RunRecord
from launch.pages.series import Numbers, last_known, number
from launch.pages.starts import start_facts
from launch.pages.tables import MAX_EVENTS, event_table, exactness, loss_of, peak_memory, probe_table, stage_table
from launch.results.evaluation_tables import grids_of, keys_of
from launch.results.measure_names import clean
from pipeline.config import Config
from pipeline.validation.loading import dump_without_secrets
from workers.observing.goodput import LOST
from workers.observing.headroom import headroom_in_words


def page(record: RunRecord, pictures: Sequence[Picture], folder: str = "report") -> str:
    """The report as self-contained HTML; every text of the run is escaped.

    Args:
        record: the run.
        pictures: drawn in the light colours of `colours.variables`.
        folder: name of the folder of the figures, beside the page.
    """
    colours, evaluation = variables(stages_of(record)), record.evaluation
    return (
        _environment()
        .get_template("report.html")
        .render(
            name=name_of(record),
            colours=colours,
            outcome=record.outcome,
            about=_about(record.config),
            began=date_of(_first(record.series.time)),
            tiles=[*_tiles(record), *_stage_tiles(record)],
            headroom=headroom_in_words(record.report),
            notes=record.notes,
            figures=[inline(picture, colours) for picture in pictures],
            traced=bool(record.parts),
            stages=stage_table(record),
            probes=probe_table(record.report),
            exactness=exactness(record.report),
            evaluations=grids_of(evaluation) if evaluation is not None else [],
            evaluation_notes=keys_of(evaluation) if evaluation is not None else [],
            events=event_table(record.events),
            more_events=max(len(record.events) - MAX_EVENTS, 0),
            facts=_facts(record),
            starts=start_facts(record.starts),
            configuration=dump_without_secrets(record.config).splitlines(),
            version=importlib.metadata.version("onward"),
            now=date_of(time.time()),
            folder=folder,
        )
    )


def _environment() -> Environment:
    """Jinja2, set so that everything except `Markup` is cleaned of invisible characters and escaped."""
    return Environment(
        loader=PackageLoader("launch.pages"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else clean(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def name_of(record: RunRecord) -> str:
    """The name of its directory."""
    return record.run.path.resolve().name


def _about(config: Config) -> list[str]:
    how = "in one process" if config.in_one_process else f"link {config.link.kind}"
    stages = "1 stage" if config.num_stages == 1 else f"{config.num_stages} stages"
    return [str(config.model.backbone), stages, config.objective.kind, config.mode, how]


def _tiles(record: RunRecord) -> list[tuple[str, str]]:
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
        *_limits(record),
        (f"{series.count:,}", f"steps, {_epoch(record)}"),
        (f"{images:,.0f}" if math.isfinite(images) else NOTHING, "images"),
        (duration(spent), "from the first step to the last" + (", without pauses" if pauses else "")),
    ]
    if record.spent.ratio is not None:
        lost = ", ".join(f"{cause} {duration(getattr(record.spent, cause))}" for cause in LOST)
        tiles.append((f"{percent(record.spent.ratio)} %", f"goodput; lost: {lost}"))
    if record.outcome.word == "running" and math.isfinite(left := last_known(series.eta)):
        tiles.append((duration(left), "left, after the last step"))
    return tiles


def _limits(record: RunRecord) -> list[tuple[str, str]]:
    """The bound and the prediction, of the whole run where it has ended, else of its last seconds."""
    found = []
    for name, words in (("predicted", "predicted"), ("bound", "if the slowest process only computed")):
        told = record.report.get(name)
        rate = number(told.get("images_per_second")) if isinstance(told, dict) else math.nan
        rate = rate if record.report else last_known(getattr(record.series, name))
        if math.isfinite(rate):
            found.append((plain(rate), f"images a second {words}"))
    return found


def _stage_tiles(record: RunRecord) -> list[tuple[str, str]]:
    stages = record.series.stages
    last = next((stages[index] for index in reversed(record.config.learners) if index in stages), None)
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
    return tiles


def _pauses(record: RunRecord) -> float:
    """Seconds between the last step of an attempt and the start of the next; 0 with a single attempt."""
    times = record.series.time[np.isfinite(record.series.time)]
    found = 0.0
    for event in record.events:
        if event.kind == "restart" and event.stage is None:
            before = times[times < event.time]
            found += event.time - float(before[-1]) if before.size else 0.0
    return found


def _facts(record: RunRecord) -> dict[str, str]:
    config, report = record.config, record.report
    digest = report.get("final_digest")
    return {
        "run": str(record.run.path),
        "outcome": f"{record.outcome.word}: {record.outcome.text}",
        "began": date_of(_first(record.series.time)),
        "last step": date_of(last_known(record.series.time)),
        "data": f"{config.data.name}, batches of {config.data.batch_size}",
        "seed": str(config.seed),
        "digest of the weights": digest if isinstance(digest, str) else NOTHING,
        "snapshots": ", ".join(path.name for path in _snapshots(record.run.snapshots)) or "none",
    }


def _snapshots(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name)) if folder.is_dir() else []


def stages_of(record: RunRecord) -> int:
    """Number of stages; `metrics.jsonl` may name more than the configuration, if it is of another run."""
    return max([record.config.num_stages, *record.series.stages])


def _epoch(record: RunRecord) -> str:
    epoch, train = last_known(record.series.epoch), record.config.train
    at = f"{epoch + 1:.0f}" if math.isfinite(epoch) else NOTHING
    return f"in epoch {at}" if train.max_steps is not None else f"to epoch {at} of {train.epochs}"


def _first(values: Numbers) -> float:
    known = values[np.isfinite(values)]
    return float(known[0]) if known.size else math.nan
