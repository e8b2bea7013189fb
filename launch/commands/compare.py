"""`onward compare RUN...`: runs side by side; those that differ only in their seed count as one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.commands.evaluation_reader import EvaluatedRun, read_evaluations
from launch.commands.run_groups import Group, changes, group_runs, samples
from launch.prepare.config_differences import differing_keys
from launch.results.comparison_tables import CSV_COLUMNS, Row, compare_documents, csv_rows, grids, is_wanted
from launch.results.evaluation_settings import other_settings
from launch.results.grid import Grid, markdown_of
from launch.results.listed_run import as_text
from launch.results.measure_names import CORRUPTION, clean, quantity
from launch.results.printing import print_grid, print_lines
from launch.results.result_files import write_file, write_rows
from pipeline.errors import UserError, allowed_names
from pipeline.evaluation.document import EvaluationResults
from pipeline.validation.pydantic_errors import shown
from workers.observing.standard_error import error_range
from workers.observing.terminal.console import Console

_HEADING, _LETTERS = 3, 30
"""Keys that the heading of a column names, and how many letters of each."""
_SHOWN = 8
"""Differences between two configurations that are written out."""
_SECOND = ("top5", "alpha_r2")
"""Metrics that a short table leaves out."""


@dataclass(frozen=True)
class Outputs:
    """Where a comparison is written, beside the terminal; None: nowhere."""

    markdown: Path | None = None
    csv: Path | None = None
    plot: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs side by side.

    Args:
        groups: the runs; the first is what the others are compared with.
        rows: every number, one row a quantity, place and data set, with an estimate for each group.
        short: those of the rows that the tables show.
        keys: of the configurations that differ between the groups.
        headings: of every group its letter, and what tells it from the others.
        above: what is to be known before the tables: which runs, how they differ, what was measured otherwise.
        below: how to read them.
    """

    groups: tuple[Group, ...]
    rows: tuple[Row, ...]
    short: tuple[Row, ...]
    keys: tuple[str, ...]
    headings: tuple[tuple[str, ...], ...]
    above: tuple[str, ...]
    below: str

    @property
    def tables(self) -> list[Grid]:
        """One for each data set."""
        return grids(self.short, self.headings, [len(group.runs) for group in self.groups])

    def __str__(self) -> str:
        """As Markdown."""
        items = "\n".join(f"- {line}" for line in self.above)
        return "\n".join(["# Comparison\n", items + "\n", *map(markdown_of, self.tables), self.below + "\n"])

    def write(self, outputs: Outputs) -> None:
        """Write the files that are asked for; raises `UserError` where one cannot be written."""
        if outputs.markdown is not None:
            write_file(outputs.markdown, str(self).encode("utf-8"))
        if outputs.csv is not None:
            labels = [group.label for group in self.groups]
            runs = ["; ".join(run.name for run in group.runs) for group in self.groups]
            all_settings = [group.settings for group in self.groups]
            settings = [[as_text(each[key]) if key in each else None for key in self.keys] for each in all_settings]
            write_rows(outputs.csv, (*CSV_COLUMNS, *self.keys), csv_rows(self.rows, labels, runs, settings))
        if outputs.plot is not None:
            from launch.results.comparison_plots import write_comparison

            names = [f"{', '.join(h[1:])}{_seeds(group)}" for h, group in zip(self.headings, self.groups, strict=True)]
            write_comparison(self.short, names, outputs.plot)

    def show(self, console: Console) -> None:
        """Print the tables, with what stands above and below."""
        print_lines(console, *self.above)
        for grid in self.tables:
            print_grid(console, grid)
        print_lines(console, self.below)


def compare_runs(names: Sequence[str], wanted: Sequence[str] = (), outputs: Outputs = Outputs()) -> Comparison:
    """Compare runs with the first one: their evaluations, or the probes at their end; write what is asked for.

    Args:
        names: run directories, two or more; `RUN@STEPS` is the snapshot of a run after so many steps.
        wanted: measures to be compared, such as `linear/quick` or `quality/lidar`; all of the short table if empty.
        outputs: files and folders; replaced if they are there.

    Raises:
        UserError: no such run, no evaluation, a damaged one, no such measure, nothing in common, or a file that
            cannot be written.
    """
    if len(names) < 2:
        raise UserError("one run is nothing to compare. Give two or more; 'onward evaluate RUN' shows one")
    runs = read_evaluations(names, probes=True)
    _check_wanted(runs, wanted)
    measures = {record.measure for run in runs for record in run.document.results if is_wanted(record, wanted)}
    groups = group_runs(runs, measures)
    rows = compare_documents([group.documents for group in groups], wanted)
    if len(groups) > 1 and not any(sum(e is not None for e in row.estimates) > 1 for row in rows):
        subject = f"of {', '.join(wanted)}" if wanted else "that was measured"
        raise UserError(f"the runs have nothing in common {subject}. Evaluate them with the same measures and places")
    short = _short(rows, wanted)
    keys = differing_keys([group.settings for group in groups])
    comparison = Comparison(
        groups=tuple(groups),
        rows=tuple(rows),
        short=tuple(short),
        keys=tuple(keys),
        headings=tuple(_headings(groups, keys)),
        above=(*_legend(groups), *warnings(runs, measures)),
        below=_explain(groups, short, len(rows) - len(short)),
    )
    comparison.write(outputs)
    return comparison


def warnings(runs: Sequence[EvaluatedRun], measures: Collection[str]) -> list[str]:
    """A warning for each run that was evaluated with other settings than the first, where they change a measure."""
    first = runs[0]
    sentences = []
    for run in runs[1:]:
        changed = list(other_settings(first.document, run.document, measures))
        if changed:
            sentences.append(
                f"warning: {clean(run.name)} was evaluated otherwise than {clean(first.name)}: {_some(changed)}"
            )
    return sentences


def _check_wanted(runs: Sequence[EvaluatedRun], wanted: Sequence[str]) -> None:
    records = [record for run in runs for record in run.document.results]
    for name in wanted:
        if not any(is_wanted(record, [name]) for record in records):
            single = name.startswith(f"{CORRUPTION}/")
            names = dict.fromkeys(clean(r.measure) for r in records if single or not quantity(r).is_detail)
            allowed = (
                allowed_names(clean(name), names) if names else "Nothing was measured; run 'onward evaluate RUN' again"
            )
            raise UserError(f"--measure: none of the runs has {shown(name)}. {allowed}")


def _short(rows: Sequence[Row], wanted: Sequence[str]) -> list[Row]:
    """Without single corruptions, top-5 and the fit of α, unless they are asked for; all if nothing is left."""
    single = any(name.startswith(f"{CORRUPTION}/") for name in wanted)
    kept = [row for row in rows if single or not row.quantity.is_detail]
    named = [f"{row.quantity.measure}/{row.quantity.metric}" in wanted for row in kept]
    rows_shown = [
        row for row, is_named in zip(kept, named, strict=True) if is_named or row.quantity.metric not in _SECOND
    ]
    return rows_shown or list(rows)


def _legend(groups: Sequence[Group]) -> list[str]:
    lines = []
    for group in groups:
        seeds = ", ".join(str(run.config.seed) for run in group.runs)
        several = "s" if len(group.runs) > 1 else ""
        lines.append(f"{group.label}  {', '.join(clean(run.name) for run in group.runs)} (seed{several} {seeds})")
    first = groups[0]
    for group in groups[1:]:
        changed = changes(first, group)
        if changed:
            lines.append(f"{group.label} differs from {first.label}: {clean(_some(changed))}")
        elif samples(group) & samples(first):
            lines.append(f"{group.label} has the configuration and a seed of {first.label}: it is no other sample")
    return lines


def _headings(groups: Sequence[Group], keys: Sequence[str]) -> list[tuple[str, ...]]:
    """Of every group its letter, and what tells it from the others: keys, or else the name of its first run."""
    settings = [group.settings for group in groups]
    texts = [tuple(_cut(f"{key}={as_text(each[key])}") for key in keys[:_HEADING] if key in each) for each in settings]
    return [
        (group.label, *(text if text and texts.count(text) == 1 else (*text, _short_name(group))))
        for group, text in zip(groups, texts, strict=True)
    ]


def _cut(text: str) -> str:
    text = clean(text)
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"


def _explain(groups: Sequence[Group], rows: Sequence[Row], hidden: int) -> str:
    parts = []
    if any(len(group.runs) > 1 for group in groups):
        parts.append("mean ± sample standard deviation over seeds; difference ± its standard error")
    else:
        parts += ["one run each: no spread over seeds is known", *_exactness(groups[0].documents[0], rows)]
    if hidden:
        parts.append(f"{hidden} more numbers with --measure and --csv")
    return "  ·  ".join(parts)


def _exactness(document: EvaluationResults, rows: Sequence[Row]) -> list[str]:
    """The standard error of the accuracies of one run, where it is known on how many images they were measured."""
    images = document.test_images(document.data.name)
    own = [row for row in rows if row.data == document.data.name and row.quantity.metric in ("top1", "top5")]
    shares = [estimate.mean for row in own for estimate in row.estimates if estimate is not None]
    return [f"one standard error on {images} test images is {error_range(shares, images)}"] if images and shares else []


def _some(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + more


def _short_name(group: Group) -> str:
    """The name of its first run."""
    name = clean(Path(group.runs[0].name).name or group.runs[0].name)
    return name if len(name) <= 32 else f"{name[:31]}…"


def _seeds(group: Group) -> str:
    return f" ({len(group.runs)} seeds)" if len(group.runs) > 1 else ""
