"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are put on one line, and bars in them are escaped."""
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join(_row(cells) for cells in lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def code(value: object) -> str:
    """Between backticks."""
    return f"`{value}`"


def generated(title: str, *parts: str) -> str:
    """A page that nobody writes by hand."""
    mark = "<!-- Written by `python -m docs.site.generate`; a test compares. -->"
    return "\n".join([f"# {title}", "", mark, "", *parts])
