"""Corruption errors of a block, and their means relative to a baseline (Hendrycks and Dietterich, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.config.places import Place
from pipeline.evaluation.corruptions.names import averaged
from pipeline.evaluation.document import Record

PREFIX = "corruption"
CLEAN, MEAN = f"{PREFIX}/clean", f"{PREFIX}/mean"
ERROR = "error"
Pair = tuple[str, int]
"""A corruption and its severity."""


@dataclass
class PlaceErrors:
    """What a classifier on one feature gets wrong, as shares from 0 to 1.

    Args:
        clean: of the test images as they are.
        corrupted: of the test images under each corruption at each severity.
    """

    clean: float
    corrupted: dict[Pair, float] = field(default_factory=dict)

    def total(self, name: str, severities: Iterable[int]) -> float:
        """The sum over severities."""
        return sum(self.corrupted[name, severity] for severity in severities)

    def excess(self, name: str, severities: Iterable[int]) -> float:
        """The sum over severities of what a corruption adds to the clean error."""
        return sum(self.corrupted[name, severity] - self.clean for severity in severities)


def corruption_records(
    data: str, place: Place, own: PlaceErrors, baseline: PlaceErrors | None, names: tuple[str, ...],
    severities: tuple[int, ...],
) -> list[Record]:  # fmt: skip
    """Everything that the benchmark says of one feature.

    `corruption/clean`, `corruption/NAME/SEVERITY` and, averaged over severities, `corruption/NAME` have the metric
    `error`; `corruption/mean` averages them over the standard corruptions that were measured, or over all if there are
    none. With a baseline, `corruption/NAME` also has `ce`, the sum of errors over severities divided by the
    baseline's, and `corruption/mean` has `mce`, its mean, and `relative_mce`, the mean of the same ratio of
    what is added to the clean error. A ratio is left out where the baseline's part of it is not above 0.

    Args:
        data: name of the data set.
        place: whose errors they are.
        own: of every name and severity.
        baseline: likewise; None for no ratios.
        names, severities: that were measured.
    """
    found: list[tuple[str, str, float | None]] = [(CLEAN, ERROR, own.clean)]
    ratios: dict[str, float | None] = {}
    if baseline is not None:
        ratios = {name: _ratio(own.total(name, severities), baseline.total(name, severities)) for name in names}
    for name in names:
        found += [(f"{PREFIX}/{name}/{level}", ERROR, own.corrupted[name, level]) for level in severities]
        found.append((f"{PREFIX}/{name}", ERROR, own.total(name, severities) / len(severities)))
        found.append((f"{PREFIX}/{name}", "ce", ratios.get(name)))
    mean = averaged(names)
    found.append((MEAN, ERROR, sum(own.total(name, severities) for name in mean) / (len(mean) * len(severities))))
    if baseline is not None:
        added = [_ratio(own.excess(name, severities), baseline.excess(name, severities)) for name in mean]
        found += [(MEAN, "mce", _mean([ratios[name] for name in mean])), (MEAN, "relative_mce", _mean(added))]
    return [
        Record(data, place.block, place.feature, measure, metric, value=value)
        for measure, metric, value in found
        if value is not None
    ]


def errors_of(records: Iterable[Record], data: str) -> Mapping[Place, PlaceErrors]:
    """The clean and the corrupted errors among the records of an evaluation, of one data set, by place."""
    clean: dict[Place, float] = {}
    corrupted: dict[Place, dict[Pair, float]] = {}
    for record in records:
        prefix, _, rest = record.measure.partition("/")
        if record.data != data or prefix != PREFIX or record.metric != ERROR:
            continue
        name, _, severity = rest.partition("/")
        if record.measure == CLEAN:
            clean[record.place] = record.value
        elif severity.isdecimal():
            corrupted.setdefault(record.place, {})[name, int(severity)] = record.value
    return {place: PlaceErrors(error, corrupted.get(place, {})) for place, error in clean.items()}


def _ratio(own: float, baseline: float) -> float | None:
    return own / baseline if baseline > 0 else None


def _mean(ratios: list[float | None]) -> float | None:
    """None if one of them is missing: a mean over fewer corruptions would be another number."""
    known = [ratio for ratio in ratios if ratio is not None]
    return sum(known) / len(known) if len(known) == len(ratios) else None
