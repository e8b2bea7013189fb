"""A hook of MkDocs: documents that lie outside of `docs` become pages of the site, and links lead to them.

`deploy/*.md` lie beside the files that they describe, and BENCHMARKS.md and others where people look for them. Links are
written as they work in the repository. A linked file that is no page, such as a preset, becomes a file of the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=(#[^)\s]*)?\))")
OUTSIDE = ("BENCHMARKS.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files: Files, config: Any) -> Files:
    """Adds the documents outside of `docs`, and what all of them link to."""
    outside = [ROOT / name for name in OUTSIDE] + sorted((ROOT / "deploy").rglob("*.md"))
    for path in outside:
        files.append(File.generated(config, _uri(path), abs_src_path=str(path)))
    for page in [file for file in files if file.is_documentation_page()]:
        source = Path(page.abs_src_path or "")
        for _, target in _links(source.read_text(), source):
            if files.get_file_from_path(_uri(target)) is None:
                files.append(File.generated(config, _uri(target), abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Links as the site needs them: from page to page."""
    source = Path(page.file.abs_src_path or "")
    targets = dict(_links(markdown, source))
    here = posixpath.dirname(page.file.src_uri)

    def lead(found: re.Match[str]) -> str:
        target = targets.get(found[0])
        return found[0] if target is None else posixpath.relpath(_uri(target), here or ".")

    return LINK.sub(lead, markdown)


def _links(text: str, source: Path) -> Iterator[tuple[str, Path]]:
    """Links of a document to files of the repository, as written, and where they lead."""
    for found in LINK.finditer(text):
        path = (source.parent / found[0]).resolve()
        path = path / "README.md" if path.is_dir() else path
        if ":" not in found[0] and path.is_file() and path.is_relative_to(ROOT):
            yield found[0], path


def _uri(path: Path) -> str:
    """Of a file of the repository, within the site."""
    name = path.relative_to(ROOT).as_posix()
    return "index.md" if name == "README.md" else name.removeprefix("docs/")
