"""The tables of one evaluation: what `onward evaluate` prints, and what its Markdown file holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from launch.results.grid import Grid, without_repeats
from launch.results.measure_names import (
    CORRUPTION,
    QUALITY,
    Quantity,
    clean,
    features_of,
    in_order,
    measure_words,
    metric_name,
    quantity,
)
from launch.results.printing import print_grid, print_lines
from pipeline.config.places import Feature
from pipeline.evaluation.document import EvaluationResults, Record
from workers.observing.standard_error import error_range
from workers.observing.terminal.console import Console

QUALITY_KEY = (
    "LiDAR, RankMe: effective dimensions, more is better; α: decay of the spectrum, near 1 is "
    "healthy, with R² of its fit; collapse level: 0 is collapsed, 1/√dimensions is healthy"
)


def print_document(console: Console, document: EvaluationResults) -> None:
    """Print every number of an evaluation but the single corruptions: tables for each data set, one row per block.

    Args:
        console: where it is narrow, tables are cut; where it is a file, there are no control codes.
        document: with or without results.
    """
    for grid in grids_of(document):
        print_grid(console, grid)
    print_lines(console, *keys_of(document), describe(document))


def grids_of(document: EvaluationResults, details: bool = False) -> list[Grid]:
    """The tables of an evaluation, one data set after the other.

    Args:
        document: with or without results.
        details: also one of the mean error under every single corruption.
    """
    grids = []
    for data in dict.fromkeys(record.data for record in document.results):
        records, images = [record for record in document.results if record.data == data], document.test_images(data)
        corrupted = [record for record in records if quantity(record).family == CORRUPTION]
        quality = [record for record in records if quantity(record).family == QUALITY]
        others = [record for record in records if record not in corrupted and record not in quality]
        for metric in dict.fromkeys(["top1", "top5", *(record.metric for record in others)]):
            grids += _by_block(data, metric, [record for record in others if record.metric == metric], images)
        grids += _by_place(f"{clean(data)}: quality of the features, without labels", quality)
        summary = [record for record in corrupted if not quantity(record).is_detail]
        grids += _by_place(f"{clean(data)}: clean and corrupted test images, %", summary)
        if details:
            grids += _by_corruption(data, corrupted)
    return grids


def keys_of(document: EvaluationResults) -> list[str]:
    """Sentences that say how to read the tables."""
    measured = {quantity(record).family for record in document.results}
    shown = dict.fromkeys(record.data for record in document.results if record.metric in ("top1", "top5"))
    counts = [f"{images} of {clean(data)}" for data in shown if (images := document.test_images(data))]
    exactness = f"±: one standard error of these accuracies, on test images: {', '.join(counts)}"
    return [*([exactness] if counts else []), *([QUALITY_KEY] if QUALITY in measured else [])]


def describe(document: EvaluationResults) -> str:
    """The run, the network, the seed and the versions of an evaluation, on one line."""
    steps = "the trained network" if document.checkpoint is None else f"the snapshot after {document.checkpoint} steps"
    versions = ", ".join(f"{clean(name)} {clean(version)}" for name, version in document.versions.items())
    measured = "" if document.results else "nothing was measured  ·  "
    return f"{measured}{clean(document.run)}, {steps}  ·  evaluation.seed {document.seed}  ·  {versions}"


def _by_block(data: str, metric: str, records: Sequence[Record], images: int) -> list[Grid]:
    """Rows are blocks, columns measures and features; `images`: how many it was tested on, 0 if that is not known."""
    if not records:
        return []
    columns = [
        (kind, feature)
        for kind in in_order(map(quantity, records))
        for feature in features_of(record for record in records if quantity(record) == kind)
    ]
    cells = {(record.block, quantity(record), record.feature): _cell(record) for record in records}
    head = [("block",), *((*measure_words(kind.measure), feature) for kind, feature in columns)]
    rows = [
        (str(block), *(cells.get((block, kind, feature), "-") for kind, feature in columns))
        for block in _blocks(records)
    ]
    unit = ", %" if Quantity("", metric).percent else ""
    accuracy = metric in ("top1", "top5")
    name = f"{metric_name(metric)} accuracy" if accuracy else metric_name(metric)
    if accuracy and images:
        unit += f" ± {error_range((record.value for record in records), images)}"
    best = " (best epoch on the test set in brackets)" if any("(" in cell for cell in cells.values()) else ""
    return [Grid(f"{clean(data)}: {name}{unit}{best}", tuple(head), tuple(rows))]


def _by_place(title: str, records: Sequence[Record]) -> list[Grid]:
    """Rows are features and blocks, columns metrics."""
    if not records:
        return []
    columns = in_order(map(quantity, records))
    cells = {(record.feature, record.block, quantity(record)): _cell(record) for record in records}
    rows = [
        (str(feature), str(block), *(cells.get((feature, block, kind), "-") for kind in columns))
        for feature, block in _places(records)
    ]
    head = (("feature",), ("block",), *(kind.words for kind in columns))
    return [Grid(title, head, without_repeats(rows, 1), keys=2)]


def _by_corruption(data: str, records: Sequence[Record]) -> list[Grid]:
    """One table per feature: rows are corruptions, columns blocks."""
    means = [record for record in records if quantity(record).is_detail and record.measure.count("/") == 1]
    grids = []
    for feature in features_of(means):
        chosen = [record for record in means if record.feature == feature and record.metric == "error"]
        blocks = _blocks(chosen)
        cells = {(record.measure, record.block): _cell(record) for record in chosen}
        rows = [
            (" ".join(measure_words(measure)), *(cells.get((measure, block), "-") for block in blocks))
            for measure in dict.fromkeys(record.measure for record in chosen)
        ]
        head = (("corruption",), *((f"block {block}",) for block in blocks))
        grids.append(Grid(f"{clean(data)}: error on the {feature}, mean over severities, %", head, tuple(rows)))
    return grids


def _blocks(records: Iterable[Record]) -> list[int]:
    return sorted({record.block for record in records})


def _places(records: Sequence[Record]) -> list[tuple[Feature, int]]:
    return [
        (feature, block)
        for feature in features_of(records)
        for block in _blocks(record for record in records if record.feature == feature)
    ]


def _cell(record: Record) -> str:
    kind = quantity(record)
    value = kind.show(record.value)
    best = value if record.best is None else kind.show(record.best)
    return value if best == value else f"{value} ({best})"
