"""Numbers, times and sizes as text."""

from __future__ import annotations

import math
from datetime import datetime

NOTHING = "–"


def date_of(seconds: float) -> str:
    """Seconds since 1970 as a date with its zone."""
    if not math.isfinite(seconds):
        return NOTHING
    try:
        return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    except (OverflowError, OSError, ValueError):
        return NOTHING


def duration(seconds: float) -> str:
    """Such as `4.2 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if not math.isfinite(seconds) or seconds < 0:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, below, below_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // below} {below_name}"
    return f"{whole // 60} min {whole % 60} s"


def plain(value: float, digits: int = 4) -> str:
    """A number with `digits` significant digits."""
    if not math.isfinite(value):
        return NOTHING
    if abs(value) >= 1e12:
        return f"{value:.{digits - 1}e}"
    if abs(value) >= 10**digits or value == round(value):
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".removesuffix(".")


def percent(share: float) -> str:
    """A share of 1 in percent, without the percent sign."""
    return f"{100 * share:.1f}" if math.isfinite(share) else NOTHING


def size_of(count: float) -> str:
    """Bytes, such as `812 MiB`."""
    if not math.isfinite(count):
        return NOTHING
    for size, name in ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if count >= size:
            return f"{count / size:.3g} {name}" if count / size < 100 else f"{count / size:.0f} {name}"
    return f"{count:.0f} B"
