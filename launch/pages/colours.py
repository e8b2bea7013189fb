"""The colours of a report, for light and dark; a stage has the same colour in every figure and on the live page.

From the first stage to the last they go from dark blue over teal to orange and also differ in lightness, so neighbours
are distinguishable with red-green colour blindness and in grey print.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matplotlib.colors import to_hex, to_rgb


class ColourPair(NamedTuple):
    """One colour, `#rrggbb`, for light and for dark."""

    light: str
    dark: str


INK = ColourPair("#171b22", "#e9ecf1")
QUIET = ColourPair("#5b6472", "#9aa4b2")
GRID = ColourPair("#e4e7ec", "#2a303b")
CARD = ColourPair("#ffffff", "#161a21")
BUSY = ColourPair("#2563c9", "#5b93ee")
STARVED = ColourPair("#b97f00", "#e3b23c")
BLOCKED = ColourPair("#b0559b", "#d184bf")
COPYING = ColourPair("#2f855a", "#63c595")
ON_BAR = ColourPair("#14181f", "#12161d")
"""Text on a bar that is light in both schemes."""
NAMED = {
    "ink": INK, "quiet": QUIET, "grid": GRID, "card": CARD, "on-bar": ON_BAR,
    "busy": BUSY, "starved": STARVED, "blocked": BLOCKED, "copying": COPYING,
}  # fmt: skip
"""Colours by the page's CSS variable names."""
_RAMP = (
    ColourPair("#27348b", "#8c9bff"),
    ColourPair("#1f77c9", "#4fb0ff"),
    ColourPair("#12897d", "#3fd0bd"),
    ColourPair("#6d8a17", "#b5d34a"),
    ColourPair("#c07d00", "#ffc04d"),
    ColourPair("#c4501b", "#ff8a5c"),
    ColourPair("#8a2f5c", "#e77fb3"),
)
_CONTRAST = 4.5
"""Minimum contrast of text (WCAG 2.2, 1.4.3)."""
_FEW = (0.0, 1.5, 4.0, 5.0)
"""Positions on the ramp for up to four stages, farther apart than even steps would be."""
DRAWN: dict[Any, Any] = {
    "text.color": INK.light, "axes.labelcolor": INK.light, "axes.edgecolor": QUIET.light, "xtick.color": QUIET.light,
    "ytick.color": QUIET.light, "xtick.labelcolor": INK.light, "ytick.labelcolor": INK.light, "grid.color": GRID.light,
}  # fmt: skip
"""Matplotlib's settings: figures use only these colours, so that a page can replace them by variables."""


def stage_colour(stage: int, count: int) -> ColourPair:
    """The colour of stage `stage` of `count`, counted from 1."""
    place = _FEW[min(stage, 4) - 1] if count <= 4 else (stage - 1) / (count - 1) * (len(_RAMP) - 1)
    low = min(int(place), len(_RAMP) - 2)
    one, other = _RAMP[low], _RAMP[low + 1]
    return ColourPair(*(_mixed(a, b, place - low) for a, b in zip(one, other, strict=True)))


def on_bar(colour: ColourPair) -> ColourPair:
    """The colour of readable text on `colour`: that of the background, or dark where the contrast is too small."""
    return CARD if 1.05 / (_luminance(colour.light) + 0.05) >= _CONTRAST else ON_BAR


def variables(stages: int) -> dict[str, ColourPair]:
    """Every colour of a report by the name of its variable on the page: `ink`, ..., `stage-1`, ..."""
    return {**NAMED, **{f"stage-{stage}": stage_colour(stage, stages) for stage in range(1, stages + 1)}}


def _luminance(colour: str) -> float:
    """Relative, 0 to 1, as WCAG 2.2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _mixed(one: str, other: str, share: float) -> str:
    (r, g, b), (to_r, to_g, to_b) = to_rgb(one), to_rgb(other)
    return to_hex((r + (to_r - r) * share, g + (to_g - g) * share, b + (to_b - b) * share))
