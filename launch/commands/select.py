"""`onward select RUN...`: runs ordered by a measure that needs no labels, and how far it agrees with accuracy.

It reads the evaluations that `onward evaluate` wrote. Where the runs have linear probes, it also prints the table of
the LiDAR paper for them: the rank correlation of every measure with accuracy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from launch.commands.selection_candidates import LAST, Candidate, read_candidates
from launch.results.evaluation_settings import other_settings
from launch.results.grid import Grid, markdown_of, without_repeats
from launch.results.measure_names import QUALITY, Quantity, clean, features_of, metric_name
from launch.results.printing import print_grid, print_lines
from launch.results.result_files import write_rows
from pipeline.config.places import FEATURES, Feature
from pipeline.errors import UserError, allowed_names
from pipeline.measures.rank_correlation import RankCorrelation, rank_correlation
from workers.observing.terminal.console import Console

SCORES = {
    "lidar": "more is better",
    "rankme": "more is better",
    "alpha": "nearer to 1 is better",
    "collapse": "more is better",
}
"""Measures that runs can be ordered by, and how."""
FEWEST = 3
"""Fewest runs for a rank correlation: two runs only have the same order or the opposite one."""
CSV_COLUMNS = (
    "rank", "run", "checkpoint", "block", "feature", "lidar", "rankme", "alpha", "alpha_r2", "collapse",
    "accuracy_measure", "accuracy_feature", "accuracy",
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What runs are ordered by.

    Args:
        by: of `SCORES`.
        feature: of `FEATURES`.
        block: a number from 1, or `last`, which is every run's own last block.
        accuracy: that measures are compared with, such as `linear/byol`; the first linear probe that all runs have if
            not given.
    """

    by: str = "lidar"
    feature: str = "trunk"
    block: str = LAST
    accuracy: str | None = None


@dataclass(frozen=True)
class Probe:
    """The accuracy with which measures are compared.

    Args:
        measure: such as `linear/quick`.
        feature: that it was fitted on.
    """

    measure: str
    feature: Feature

    def of(self, candidate: Candidate) -> float | None:
        """Top-1, 0 to 1."""
        return candidate.value(self.feature, self.measure, "top1")


@dataclass(frozen=True)
class Selection:
    """Runs ordered by a measure that needs no labels.

    Args:
        ordered: best first.
        choice: what ordered them.
        probe: the accuracy that measures were compared with; None where the runs have none in common.
        warnings: about runs that were evaluated otherwise than the first.
        ranking: the runs as a table.
        agreement: the rank correlation of every measure with accuracy as a table; None where there is none.
        below: how to read it, or why there is none.
    """

    ordered: tuple[Candidate, ...]
    choice: Choice
    probe: Probe | None
    warnings: tuple[str, ...]
    _: KW_ONLY
    ranking: Grid
    agreement: Grid | None
    below: str

    @property
    def best(self) -> str:
        """The first run, by the name that was given."""
        return self.ordered[0].name

    @property
    def names(self) -> list[str]:
        """All runs, best first."""
        return [candidate.name for candidate in self.ordered]

    def __str__(self) -> str:
        """As Markdown."""
        tables = [self.ranking] if self.agreement is None else [self.ranking, self.agreement]
        return "\n".join([*self.warnings, *map(markdown_of, tables), self.below + "\n"])

    def show(self, console: Console) -> None:
        """Print the tables."""
        print_lines(console, *self.warnings)
        print_grid(console, self.ranking)
        if self.agreement is not None:
            print_grid(console, self.agreement)
        print_lines(console, self.below)


def select_runs(names: Sequence[str], choice: Choice, csv: Path | None = None) -> Selection:
    """Order runs, best first, and correlate all measures with accuracy.

    Args:
        names: run directories, two or more; `RUN@STEPS` is the snapshot of a run after so many steps.
        choice: what orders them.
        csv: file for the ordered runs; replaced if it is there.

    Raises:
        UserError: no such run, no evaluation, a damaged one, or one without the numbers that are asked for.
    """
    by, feature = choice.by, _check(choice)
    candidates = read_candidates(names, choice.block)
    ordered = sorted(candidates, key=lambda candidate: _score(by, _needed(candidate, feature, by)), reverse=True)
    probe = _probe(candidates, feature, choice.accuracy)
    agreement, below = _agreement(candidates, probe)
    selection = Selection(
        tuple(ordered),
        choice,
        probe,
        tuple(_warnings(candidates)),
        ranking=_ranking(ordered, feature, by, probe),
        agreement=agreement,
        below=below,
    )
    if csv is not None:
        write_rows(csv, CSV_COLUMNS, _csv_rows(ordered, feature, probe))
    return selection


def _check(choice: Choice) -> Feature:
    by, feature, block = choice.by, choice.feature, choice.block
    if by not in SCORES:
        raise UserError(f"--by: '{clean(by)}' is nothing that runs are ordered by. {allowed_names(by, SCORES)}")
    if block != LAST and not re.fullmatch(r"[1-9]\d{0,5}", block):
        raise UserError(f"--block: '{clean(block)}' is no block. Give a number from 1, or '{LAST}'")
    for allowed in FEATURES:
        if feature == allowed:
            return allowed
    raise UserError(f"--feature: '{clean(feature)}' is no feature of a block. {allowed_names(feature, FEATURES)}")


def _needed(candidate: Candidate, feature: Feature, metric: str) -> float:
    value = candidate.value(feature, QUALITY, metric)
    if value is not None:
        return value
    features = features_of(
        r for r in candidate.document.results if (r.measure, r.metric, r.block) == (QUALITY, metric, candidate.block)
    )
    problem = f"the evaluation of '{clean(candidate.name)}' has no {metric} of block {candidate.block} {feature}"
    raise UserError(f"{problem}. It has that of: {', '.join(features) or 'no feature of the block'}")


def _score(metric: str, value: float) -> float:
    """Larger is better."""
    return -abs(value - 1.0) if metric == "alpha" else value


def _probe(candidates: Sequence[Candidate], feature: Feature, wanted: str | None) -> Probe | None:
    """The accuracy to compare with: of the same feature if all runs have it, else of the trunk or the expansion."""
    first = candidates[0].document.results
    measures = [wanted] if wanted else dict.fromkeys(r.measure for r in first if r.measure.startswith("linear/"))
    for measure in measures:
        for other in dict.fromkeys((feature, *FEATURES)):
            probe = Probe(measure, other)
            if all(probe.of(candidate) is not None for candidate in candidates):
                return probe
    if wanted:
        measured = dict.fromkeys(r.measure for r in first if r.metric == "top1")
        allowed = allowed_names(wanted, map(clean, measured)) if measured else "None was measured"
        raise UserError(f"--accuracy: not all runs have '{clean(wanted)}' of the block. {allowed}")
    return None


def _warnings(candidates: Sequence[Candidate]) -> list[str]:
    """A warning for each run that was evaluated with other settings, or on other data, than the first."""
    first, lines = candidates[0], []
    for other in candidates[1:]:
        changed = list(other_settings(first.document, other.document, {QUALITY}))
        if changed:
            problem = f"{clean(other.name)} was evaluated otherwise than {clean(first.name)}"
            lines.append(f"warning: {problem}: {'; '.join(changed[:4])}")
    return lines


def _ranking(ordered: Sequence[Candidate], feature: Feature, by: str, probe: Probe | None) -> Grid:
    metrics = [by, *(metric for metric in SCORES if metric != by)]
    head: list[tuple[str, ...]] = [("run",), *((metric_name(metric),) for metric in metrics)]
    if probe is not None:
        head.append((*probe.measure.split("/"), probe.feature, "top-1, %"))
    rows = []
    for candidate in ordered:
        cells = [_cell(metric, candidate.value(feature, QUALITY, metric)) for metric in metrics]
        if probe is not None:
            cells.append(_cell("top1", probe.of(candidate)))
        rows.append((clean(candidate.name), *cells))
    blocks = sorted({candidate.block for candidate in ordered})
    block = f"block {blocks[0]}" if len(blocks) == 1 else "last block"
    return Grid(f"{block}, {feature}: best first by {metric_name(by)}, {SCORES[by]}", tuple(head), tuple(rows))


def _cell(metric: str, value: float | None) -> str:
    return "-" if value is None else Quantity(QUALITY, metric).show(value)


def _agreement(candidates: Sequence[Candidate], probe: Probe | None) -> tuple[Grid | None, str]:
    """The correlations, and how to read them, or why there are none."""
    if probe is None:
        return None, "no rank correlations: the runs have no linear probe in common"
    if len(candidates) < FEWEST:
        return None, f"no rank correlations: {len(candidates)} runs are too few, and {FEWEST} the fewest"
    rows: list[tuple[str, ...]] = []
    for feature in FEATURES:
        for metric in SCORES:
            correlation = _correlation(candidates, probe, feature, metric)
            if correlation is not None:
                values = f"{correlation.kendall:+.3f}", f"{correlation.spearman:+.3f}"
                rows.append((feature, metric_name(metric), *values))
    if not rows:
        return None, "no rank correlations: the runs have the same accuracy, or the same values of every measure"
    title = f"rank correlation with {' '.join(probe.measure.split('/'))} top-1 of the {probe.feature}"
    head = (("feature",), ("measure",), ("Kendall's", "tau-b"), ("Spearman's", "rho"))
    how = "1: orders runs as accuracy does, 0: says nothing, -1: the other way round; α counts by its distance to 1"
    return Grid(f"{title}, {len(candidates)} runs", head, without_repeats(rows, 1), keys=2), how


def _correlation(
    candidates: Sequence[Candidate], probe: Probe, feature: Feature, metric: str
) -> RankCorrelation | None:
    """None where a run lacks the measure, or nothing varies."""
    values = [candidate.value(feature, QUALITY, metric) for candidate in candidates]
    accuracies = [probe.of(candidate) for candidate in candidates]
    scores = [_score(metric, value) for value in values if value is not None]
    measured = [accuracy for accuracy in accuracies if accuracy is not None]
    return rank_correlation(scores, measured) if len(scores) == len(measured) == len(candidates) else None


def _csv_rows(ordered: Sequence[Candidate], feature: Feature, probe: Probe | None) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for rank, candidate in enumerate(ordered, 1):
        numbers = [candidate.value(feature, QUALITY, m) for m in ("lidar", "rankme", "alpha", "alpha_r2", "collapse")]
        accuracy = (None, None, None) if probe is None else (probe.measure, probe.feature, probe.of(candidate))
        names = (rank, candidate.name, candidate.document.checkpoint, candidate.block, feature)
        rows.append((*names, *numbers, *accuracy))
    return rows
