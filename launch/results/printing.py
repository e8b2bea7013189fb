"""How commands print: one console, lines that are printed as they are, and tables cut to its width."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Literal

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from launch.results.grid import Grid
from workers.observing.terminal.console import Console, PrintableConsole
from workers.observing.terminal.verbosity import attached

_BESIDE = 3
"""Columns of the terminal that a column of the table takes beside its text: a blank on either side, and the line."""


def command_console(quiet: bool = False) -> Console:
    """The console on the standard output; one that is quiet prints nothing. Lines are redrawn on a terminal only."""
    return Console(PrintableConsole(quiet=quiet, force_terminal=attached(), force_interactive=attached()))


def print_lines(console: Console, *lines: str) -> None:
    """Print lines as they are: no markup, no colours, no breaks where the console is narrow."""
    for line in lines:
        console.warn(line)


def print_grid(console: Console, grid: Grid) -> None:
    """Print a table, cut into several where the console is too narrow for all columns."""
    console.warn(grid.title, style="italic")
    for columns in _fitting(grid, console.out.width):
        table = Table()
        for column in columns:
            text = column < grid.keys and not all(row[column].isdigit() or not row[column] for row in grid.rows)
            justify: Literal["left", "right"] = "left" if text else "right"
            table.add_column(Text("\n".join(grid.head[column])), justify=justify, no_wrap=True, vertical="bottom")
        for index, row in enumerate(grid.rows):
            if index and grid.ruled and grid.keys > 1 and row[0]:
                table.add_section()
            table.add_row(*(Text(row[column]) for column in columns))
        console.show(table)


def _fitting(grid: Grid, width: int) -> Iterator[list[int]]:
    """The columns of each table: the keys, and as many others as there is room for, at least one.

    Columns whose headings differ only in the last line are kept together where that is possible.
    """
    cells = zip(*grid.rows, strict=True) if grid.rows else [()] * len(grid.head)
    sizes = [_BESIDE + max(map(cell_len, (*head, *texts))) for head, texts in zip(grid.head, cells, strict=True)]
    keys = list(range(grid.keys))
    room = width - 1 - sum(sizes[: grid.keys])
    chosen, left = list(keys), room
    for _, group in groupby(range(grid.keys, len(sizes)), key=lambda column: grid.head[column][:-1]):
        columns = list(group)
        together = sum(sizes[column] for column in columns)
        for column in columns:
            apart = together <= room and column == columns[0] and together > left
            if len(chosen) > grid.keys and (apart or sizes[column] > left):
                yield chosen
                chosen, left = list(keys), room
            chosen.append(column)
            left -= sizes[column]
    yield chosen
