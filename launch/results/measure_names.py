"""How measures are called and how their numbers are written: one place for tables, files and figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.config.places import FEATURES, Feature
from pipeline.evaluation.document import Record

SHARES = ("top1", "top5", "error", "ce", "mce", "relative_mce")
"""Metrics that are stored as shares of 1 and shown in percent."""
QUALITY = "quality"
CORRUPTION = "corruption"
_FAMILIES = ("linear", "mlp", "few_labels", "knn", QUALITY, CORRUPTION)
_METRICS = {
    "top1": "top-1", "top5": "top-5", "lidar": "LiDAR", "rankme": "RankMe", "alpha": "α", "alpha_r2": "R² of α",
    "collapse": "collapse level", "error": "error", "ce": "CE", "mce": "mCE", "relative_mce": "relative mCE",
}  # fmt: skip
_DIGITS = {"lidar": 1, "rankme": 1, "alpha": 2, "alpha_r2": 3, "collapse": 4}


@dataclass(frozen=True)
class Quantity:
    """What a number says, apart from the data and the place it was measured on.

    Args:
        measure: such as `linear/quick`.
        metric: such as `top1`.
    """

    measure: str
    metric: str

    @property
    def family(self) -> str:
        """What the measure begins with: `linear`, `knn`, `quality`, ..."""
        return self.measure.split("/")[0]

    @property
    def percent(self) -> bool:
        """Whether it is shown in percent."""
        return self.metric in SHARES

    @property
    def is_detail(self) -> bool:
        """Whether it is one corruption among many; their mean is what a short table has room for."""
        return self.family == CORRUPTION and self.measure not in (f"{CORRUPTION}/clean", f"{CORRUPTION}/mean")

    @property
    def words(self) -> tuple[str, ...]:
        """Measure and metric, one a line of a narrow heading; what a metric says by itself is left out."""
        named_by_metric = self.family == QUALITY or self.metric in ("mce", "relative_mce")
        return (*(() if named_by_metric else measure_words(self.measure)), metric_name(self.metric))

    def __str__(self) -> str:
        """On one line, with its unit, such as `linear quick top-1, %`."""
        name = " ".join(self.words)
        return f"{name}, %" if self.percent else name

    def show(self, value: float, sign: bool = False) -> str:
        """`value`, as it is stored, with the digits that mean something; no unit.

        Args:
            value: shares are multiplied by 100.
            sign: also write a plus, for differences.
        """
        digits = 1 if self.percent else _DIGITS.get(self.metric, 3)
        return f"{100 * value if self.percent else value:{'+' if sign else ''}.{digits}f}"


def quantity(record: Record) -> Quantity:
    """What a record is a value of."""
    return Quantity(record.measure, record.metric)


def in_order(quantities: Iterable[Quantity]) -> list[Quantity]:
    """Without doubles: families, and qualities, in the order of every table; the others as they were measured."""
    return sorted(dict.fromkeys(quantities), key=_rank)


def features_of(records: Iterable[Record]) -> list[Feature]:
    """The features that occur, from the inside of a block to its loss."""
    occurring = {record.feature for record in records}
    return [feature for feature in FEATURES if feature in occurring]


def metric_name(metric: str) -> str:
    """As papers write it, such as `top-1`."""
    return _METRICS.get(metric) or clean(metric)


def measure_words(measure: str) -> tuple[str, ...]:
    """A measure in a few words, one a line of a narrow heading: `linear`, `quick`."""
    family, *rest = measure.split("/")
    if family == "few_labels" and rest:
        return f"{_percent(rest[0])} % of", "labels", *map(clean, rest[1:])
    if family == "knn" and rest:
        return "k-NN,", f"k = {clean('/'.join(rest))}"
    if family == "mlp":
        return "MLP", *map(clean, rest)
    if family == CORRUPTION and rest:
        return clean(rest[0].replace("_", " ")), *(f"severity {clean(severity)}" for severity in rest[1:])
    return tuple(map(clean, (family, *rest)))


def clean(text: str) -> str:
    """`text` on one line, without what a terminal would act on: documents may come from anywhere."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _rank(kind: Quantity) -> tuple[int, int]:
    family = _FAMILIES.index(kind.family) if kind.family in _FAMILIES else len(_FAMILIES)
    metrics = list(_METRICS)
    return family, metrics.index(kind.metric) if kind.family == QUALITY and kind.metric in metrics else len(metrics)


def _percent(share: str) -> str:
    try:
        return f"{100 * float(share):g}"
    except ValueError:
        return clean(share)
