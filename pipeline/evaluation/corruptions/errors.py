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
CorruptionLevel = tuple[str, int]
"""A corruption and its severity."""


@dataclass
class PlaceErrors:
    """Error rates, 0 to 1, of a classifier on one feature.

    Args:
        clean: on the clean test images.
        corrupted: on the test images, by corruption and severity.
    """

    clean: float
    corrupted: dict[CorruptionLevel, float] = field(default_factory=dict)

    def total(self, name: str, severities: Iterable[int]) -> float:
        """The sum over severities."""
        return sum(self.corrupted[name, severity] for severity in severities)

    def excess(self, name: str, severities: Iterable[int]) -> float:
        """The sum over severities of the corrupted error minus the clean error."""
        return sum(self.corrupted[name, severity] - self.clean for severity in severities)


def corruption_records(
    data: str, place: Place, errors: PlaceErrors, baseline: PlaceErrors | None, names: tuple[str, ...],
    severities: tuple[int, ...],
) -> list[Record]:  # fmt: skip
    """All results of the corruption benchmark for one feature.

    `corruption/clean`, `corruption/NAME/SEVERITY` and, averaged over severities, `corruption/NAME` have the metric
    `error`; `corruption/mean` averages them over the standard corruptions that were measured, or over all if there are
    none. With a baseline, `corruption/NAME` also has `ce`, the sum of errors over severities divided by the
    baseline's, and `corruption/mean` has `mce`, its mean, and `relative_mce`, the mean of the same ratio of the
    excess over the clean error. A ratio is left out where its denominator is not above 0.

    Args:
        data: name of the data set.
        place: of the feature.
        errors: for every name and severity.
        baseline: errors of the baseline, likewise; None leaves the ratios out.
        names, severities: those that were measured.
    """
    values: list[tuple[str, str, float | None]] = [(CLEAN, ERROR, errors.clean)]
    ratios: dict[str, float | None] = {}
    if baseline is not None:
        ratios = {name: _ratio(errors.total(name, severities), baseline.total(name, severities)) for name in names}
    for name in names:
        values += [(f"{PREFIX}/{name}/{level}", ERROR, errors.corrupted[name, level]) for level in severities]
        values.append((f"{PREFIX}/{name}", ERROR, errors.total(name, severities) / len(severities)))
        values.append((f"{PREFIX}/{name}", "ce", ratios.get(name)))
    mean = averaged(names)
    values.append((MEAN, ERROR, sum(errors.total(name, severities) for name in mean) / (len(mean) * len(severities))))
    if baseline is not None:
        added = [_ratio(errors.excess(name, severities), baseline.excess(name, severities)) for name in mean]
        values += [(MEAN, "mce", _mean([ratios[name] for name in mean])), (MEAN, "relative_mce", _mean(added))]
    return [
        Record(data, place.block, place.feature, measure, metric, value)
        for measure, metric, value in values
        if value is not None
    ]


def errors_of(records: Iterable[Record], data: str) -> Mapping[Place, PlaceErrors]:
    """The clean and corrupted errors of one data set in the records of an evaluation, by place."""
    clean: dict[Place, float] = {}
    corrupted: dict[Place, dict[CorruptionLevel, float]] = {}
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


def _ratio(error: float, baseline: float) -> float | None:
    return error / baseline if baseline > 0 else None


def _mean(ratios: list[float | None]) -> float | None:
    """The mean; None if one ratio is missing, because a mean over fewer corruptions is not comparable."""
    present = [ratio for ratio in ratios if ratio is not None]
    return sum(present) / len(present) if len(present) == len(ratios) else None
