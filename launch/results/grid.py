"""A table of text cells, which a terminal or a Markdown file may show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """One table.

    Args:
        title: what it is, with units.
        head: of every column, the lines of its heading.
        rows: the cells, as many in every row as there are columns.
        keys: how many columns, from the left, say what a row is about.
        ruled: whether lines part what rows are about, where several columns say it.
    """

    title: str
    head: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int = 1
    ruled: bool = True


def markdown_of(grid: Grid) -> str:
    """The table in GitHub's Markdown, under its title."""
    lines = [f"**{_escaped(grid.title)}**", ""]
    lines.append(_line([" ".join(heading) for heading in grid.head]))
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


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """Text with Markdown's special characters escaped; an underscore within a word is none."""
    for letter in "\\|*`<[":
        text = text.replace(letter, "\\" + letter)
    return text
