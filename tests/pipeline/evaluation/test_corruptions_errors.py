"""Means of corruption errors, by hand, and reading them back from records."""

from __future__ import annotations

import pytest

from pipeline.config.places import Place
from pipeline.evaluation.corruptions.errors import PlaceErrors, corruption_records, errors_of
from pipeline.evaluation.document import Record

PLACE = Place(2, "trunk")
NAMES, SEVERITIES = ("fog", "snow", "spatter"), (1, 5)


def errors(clean: float, **corrupted: tuple[float, float]) -> PlaceErrors:
    pairs = {(name, s): e for name, two in corrupted.items() for s, e in zip(SEVERITIES, two, strict=True)}
    return PlaceErrors(clean, pairs)


OWN = errors(0.2, fog=(0.3, 0.5), snow=(0.4, 0.6), spatter=(0.9, 0.9))
BASE = errors(0.1, fog=(0.4, 0.6), snow=(0.2, 0.3), spatter=(0.3, 0.3))


def values(own: PlaceErrors, base: PlaceErrors | None, names: tuple[str, ...] = NAMES) -> dict[tuple[str, str], float]:
    records = corruption_records("mnist", PLACE, own, base, names, SEVERITIES)
    assert {(r.data, r.place) for r in records} == {("mnist", PLACE)}
    return {(r.measure, r.metric): r.value for r in records}


def test_means_and_ratios_by_hand() -> None:
    found = values(OWN, BASE)
    assert found["corruption/clean", "error"] == 0.2
    assert found["corruption/snow/5", "error"] == 0.6
    assert found["corruption/spatter", "error"] == pytest.approx(0.9)
    assert found["corruption/mean", "error"] == pytest.approx((0.3 + 0.5 + 0.4 + 0.6) / 4)  # without spatter
    assert found["corruption/fog", "ce"] == pytest.approx(0.8 / 1.0)
    assert found["corruption/snow", "ce"] == pytest.approx(1.0 / 0.5)
    assert found["corruption/spatter", "ce"] == pytest.approx(1.8 / 0.6)
    assert found["corruption/mean", "mce"] == pytest.approx((0.8 + 2.0) / 2)
    added = ((0.1 + 0.3) / (0.3 + 0.5), (0.2 + 0.4) / (0.1 + 0.2))
    assert found["corruption/mean", "relative_mce"] == pytest.approx(sum(added) / 2)


def test_without_a_baseline_there_are_errors_only() -> None:
    assert {metric for _, metric in values(OWN, None)} == {"error"}


def test_a_mean_over_extra_corruptions_alone() -> None:
    assert values(OWN, BASE, ("spatter",))["corruption/mean", "mce"] == pytest.approx(3.0)


def test_a_ratio_to_nothing_is_left_out() -> None:
    flawless = errors(0.1, fog=(0.1, 0.1), snow=(0.0, 0.0), spatter=(0.2, 0.2))
    found = values(OWN, flawless)
    assert found["corruption/fog", "ce"] == pytest.approx(4.0)
    assert ("corruption/snow", "ce") not in found
    assert ("corruption/mean", "mce") not in found
    assert ("corruption/mean", "relative_mce") not in found  # fog adds nothing to the baseline's clean error


def test_errors_are_read_back_from_records() -> None:
    records = [
        Record("mnist", 2, "trunk", "linear/quick", "top1", value=0.7),
        *corruption_records("mnist", PLACE, OWN, BASE, NAMES, SEVERITIES),
        *corruption_records("kmnist", PLACE, BASE, None, NAMES, SEVERITIES),
        *corruption_records("mnist", Place(3, "expansion"), BASE, None, NAMES, SEVERITIES),
    ]
    found = errors_of(records, "mnist")
    assert found == {PLACE: OWN, Place(3, "expansion"): BASE}
    assert errors_of(records, "qmnist") == {}
