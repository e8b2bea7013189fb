"""A table as text in cells, before it is known whether a terminal or a Markdown file will show it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_BESIDE = 3
"""Columns of the terminal that a column of the table takes beside its text: a blank on either side, and the line."""


@dataclass(frozen=True)
class Grid:
    """One table.

    Args:
        title: what it is, with units.
        head: of every column, the lines of its heading.
        rows: the cells, as many in every row as there are columns.
        keys: how many columns, from the left, say what a row is about.
    """

    title: str
    head: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int = 1


def print_grid(console: Console, grid: Grid) -> None:
    """Print it, cut into several tables where the console is too narrow for all columns."""
    console.print(Text(grid.title, style="italic"), soft_wrap=True)
    for columns in _fitting(grid, console.width):
        table = Table()
        for column in columns:
            text = column < grid.keys and not all(row[column].isdigit() or not row[column] for row in grid.rows)
            justify: Literal["left", "right"] = "left" if text else "right"
            table.add_column(Text("\n".join(grid.head[column])), justify=justify, no_wrap=True, vertical="bottom")
        for index, row in enumerate(grid.rows):
            if index and grid.keys > 1 and row[0]:
                table.add_section()
            table.add_row(*(Text(row[column]) for column in columns))
        console.print(table)


def markdown_of(grid: Grid) -> str:
    """It as a table of GitHub's Markdown, under its title."""
    lines = [f"**{_escaped(grid.title)}**", ""]
    lines.append(_line([" ".join(words) for words in grid.head]))
    lines.append("|" + "|".join("---" if column < grid.keys else "---:" for column in range(len(grid.head))) + "|")
    lines += [_line(row) for row in grid.rows]
    return "\n".join(lines) + "\n"


def without_repeats(rows: list[tuple[str, ...]], keys: int) -> tuple[tuple[str, ...], ...]:
    """`rows`, the first `keys` cells blank where they and all before them are those of the row above."""
    shown = []
    for index, row in enumerate(rows):
        above = rows[index - 1][:keys] if index else ()
        same = next((k for k in range(keys) if not above or row[k] != above[k]), keys)
        shown.append(("",) * same + row[same:])
    return tuple(shown)


def _fitting(grid: Grid, width: int) -> Iterator[list[int]]:
    """Which columns stand in which table: the keys in each, and as many others as there is room for, at least one.

    Columns whose headings differ only in the last line are kept together where that is possible.
    """
    cells = zip(*grid.rows, strict=True) if grid.rows else [()] * len(grid.head)
    sizes = [_BESIDE + max(map(cell_len, (*head, *texts))) for head, texts in zip(grid.head, cells, strict=True)]
    keys = list(range(grid.keys))
    room = width - 1 - sum(sizes[: grid.keys])
    taken, left = list(keys), room
    for _, group in groupby(range(grid.keys, len(sizes)), key=lambda column: grid.head[column][:-1]):
        columns = list(group)
        together = sum(sizes[column] for column in columns)
        for column in columns:
            apart = together <= room and column == columns[0] and together > left
            if len(taken) > grid.keys and (apart or sizes[column] > left):
                yield taken
                taken, left = list(keys), room
            taken.append(column)
            left -= sizes[column]
    yield taken


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """What Markdown would act on stays what it is; an underscore within a word does anyway."""
    for letter in "\\|*`<[":
        text = text.replace(letter, "\\" + letter)
    return text
