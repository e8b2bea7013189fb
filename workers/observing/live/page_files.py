"""The files of the page, read once; no other file is ever served."""

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
"""Content type by suffix; files with other suffixes, such as licences and scripts, are not served."""


@dataclass(frozen=True)
class PageFile:
    """Content type and data of a file."""

    content_type: str
    data: bytes


def page_files() -> dict[str, PageFile]:
    """All files of the page by URL path."""
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
