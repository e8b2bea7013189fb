"""How every figure looks and is written: for a paper's column, for the colour-blind, and the same bytes each time.

Matplotlib's objects only, without pyplot: it would keep figures, and choose a window system.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from launch.results.measure_names import clean
from launch.results.result_files import write_file

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 13.0, "axes.titlesize": 13.0, "axes.labelsize": 13.0,
    "legend.fontsize": 12.0, "xtick.labelsize": 12.0, "ytick.labelsize": 12.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#dddddd", "grid.linewidth": 0.8, "lines.linewidth": 2.2, "lines.markersize": 7.0,
    "legend.frameon": False, "figure.facecolor": "white", "savefig.facecolor": "white",
    "svg.hashsalt": "onward", "svg.fonttype": "path", "text.usetex": False,
}  # fmt: skip
"""Sizes are for a figure of `WIDTH` inches; at half that width, a column of a paper, letters have 6 points and more."""
WIDTH = 7.0
DPI = 150
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito, "Color universal design" (2008), without the yellow, which vanishes on white."""
MARKERS = ("o", "s", "^", "D", "v", "<", ">")
_LETTERS = 70
"""That fit beside each other below a figure."""
_LINE = 0.25
"""Height of a line of letters, in inches."""
_LEAST = 3.8
"""Height of all axes together, in inches, so that one row is no strip."""
_NAMED = 8
"""Blocks that a legend names."""


@contextmanager
def styled() -> Iterator[None]:
    """A context in which figures have this look, whatever the user's own settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def panels(titles: Sequence[str], columns: int, height: float = 3.2, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure with one axes a title, in rows of `columns`.

    Args:
        titles: at least one.
        columns: at most so many beside each other.
        height: of a row, in inches; more where there is only one.
        shared: `sharex` and `sharey` of `Figure.subplots`.
    """
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    titles = [lettering(title, _LETTERS // columns - 8) for title in titles]
    height = max(height, _LEAST / rows) + _LINE * max(title.count("\n") for title in titles)
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, **shared)
    axes: list[Axes] = list(grid.flat)
    for title, each in zip(titles, axes, strict=False):
        each.set_title(title)
    for spare in axes[len(titles) :]:
        spare.set_axis_off()
    for above in axes[max(0, len(titles) - columns) : (rows - 1) * columns]:
        above.xaxis.set_tick_params(labelbottom=True)  # nothing is below it
    return figure, axes[: len(titles)]


def lettering(text: str, width: int = 60) -> str:
    """A name as it may stand in a figure: no formula, and in lines of `width` letters, three at most."""
    lines = textwrap.wrap(clean(text), width, max_lines=3, placeholder=" …")
    return "\n".join(lines).replace("$", r"\$")


def series_style(index: int) -> dict[str, Any]:
    """Colour and marker of the line `index`: no two are alike before the 49th, and seven differ in both."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "marker": MARKERS[(index + index // len(PALETTE)) % len(MARKERS)],
        "markeredgecolor": "white",
        "markeredgewidth": 0.8,
    }


def block_colours(blocks: Sequence[int]) -> dict[int, Any]:
    """Blocks have an order, and so have their colours: dark to light, also in gray."""
    colours = mpl.colormaps["viridis"]
    last = max(len(blocks) - 1, 1)
    return {block: colours(0.88 * index / last) for index, block in enumerate(sorted(blocks))}


def named_blocks(colours: Mapping[int, Any]) -> list[int]:
    """Which blocks a legend names: all, or of many the first, the last and some between, as colours tell the rest."""
    blocks = sorted(colours)
    if len(blocks) <= _NAMED:
        return blocks
    return [blocks[round(index * (len(blocks) - 1) / (_NAMED - 1))] for index in range(_NAMED)]


def block_axis(axes: Sequence[Axes]) -> None:
    """Whole numbers below."""
    for each in axes:
        each.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        each.margins(x=0.06)


def label_outer(axes: Sequence[Axes], columns: int, below: str, left: str) -> None:
    """Name the axes that have none beside them: in rows of `columns`, those at the bottom and on the left."""
    columns = min(columns, len(axes))
    for index, each in enumerate(axes):
        if index % columns == 0:
            each.set_ylabel(left)
        if index + columns >= len(axes):
            each.set_xlabel(below)


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """One legend for all axes, outside of them, in as many columns as there is room for."""
    labels = [lettering(label) for label in labels]
    longest = max(map(len, labels))
    columns = max(1, min(len(labels), _LETTERS // (longest + 6)))
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + _LINE * -(-len(labels) // columns))
    figure.legend(list(handles), labels, loc="outside lower center", ncols=columns, columnspacing=1.4)


def save(figure: Figure, folder: Path, *parts: str) -> list[Path]:
    """Write `PART-PART.png` and `PART-PART.svg`: the same bytes for the same numbers and versions.

    Args:
        figure: finished.
        folder: made if it is not there.
        parts: of the name; letters that do not belong into the name of a file are replaced.

    Raises:
        UserError: the files cannot be written.
    """
    stem = "-".join(re.sub(r"[^A-Za-z0-9_]+", "-", part).strip("-")[:60] for part in parts)
    written = []
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else {})
        written.append(folder / f"{stem}.{kind}")
        write_file(written[-1], buffer.getvalue())
    return written
