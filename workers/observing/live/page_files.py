"""The files of the page, read once: only these are ever served, whatever path is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""By the end of a name; others, such as licences and scripts, stay where they are."""


@dataclass(frozen=True)
class PageFile:
    """One file: its type and what is in it."""

    content_type: str
    data: bytes


def page_files() -> dict[str, PageFile]:
    """By the path that a browser asks for."""
    found = {f"/static/{name}": file for name, file in _under(files("workers.observing.live") / "static", "")}
    return {**found, "/": found["/static/index.html"], "/favicon.ico": found["/static/favicon.svg"]}


def _under(folder: Traversable, prefix: str) -> list[tuple[str, PageFile]]:
    found = []
    for entry in folder.iterdir():
        end = "." + entry.name.rpartition(".")[2]
        if entry.is_dir():
            found += _under(entry, f"{prefix}{entry.name}/")
        elif end in TYPES:
            found.append((prefix + entry.name, PageFile(TYPES[end], entry.read_bytes())))
    return found
