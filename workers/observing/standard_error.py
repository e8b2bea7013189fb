"""How far an accuracy may be off because it was measured on so many test images and no more."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

MARK = "~"
"""Stands before a difference that may be chance."""


def standard_error(share: float, images: int) -> float:
    """Of an accuracy, 0 to 1, on independent test images: sqrt(p (1 - p) / n), the binomial's; 0 where p is 0 or 1."""
    return math.sqrt(max(share * (1 - share), 0.0) / images)


def may_be_chance(before: float, after: float, images: int) -> bool:
    """Whether two accuracies on as many test images differ by no more than two standard errors of their difference.

    The error is that of independent measurements, sqrt(s1² + s2²). On the same images it is smaller, by how much the
    answers agree, which is not recorded; so rather too many differences are marked than too few.
    """
    error = math.hypot(standard_error(before, images), standard_error(after, images))
    return abs(after - before) <= 2 * error


def error_range(shares: Iterable[float], images: int) -> str:
    """The smallest and the largest standard error of some accuracies, in points, such as `0.8 to 1.1`."""
    errors = [100 * standard_error(share, images) for share in shares]
    low, high = (f"{each:.1f}" for each in (min(errors), max(errors)))
    return low if low == high else f"{low} to {high}"


def tested_on(report: dict[str, Any]) -> int | None:
    """How many images the probes of a `report.json` were tested on; None in those of earlier versions."""
    found = report.get("probe_images")
    count = found.get("test") if isinstance(found, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else None
