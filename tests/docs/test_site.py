"""The site is built strictly: it has every page, every link leads somewhere, and nothing comes from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from tests.documents import DOCUMENTS
from tests.sources import REPOSITORY, name_of

FOREIGN = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\bsrc=\"(https?:)?//|<link\b[^>]*rel=\"(?:stylesheet|preconnect)\"[^>]*https?://"
)
NO_PAGES = ("README.md", "configs/README.md")
"""Documents that people read in the repository only."""


@pytest.mark.slow
def test_the_site_has_every_document_and_needs_no_network(tmp_path: Path) -> None:
    build(load_config(str(REPOSITORY / "mkdocs.yml"), strict=True, site_dir=str(tmp_path)))
    expected = {name_of(path).removeprefix("docs/") for path in DOCUMENTS} - set(NO_PAGES)
    missing = [name for name in expected if not (tmp_path / page_of(name)).is_file()]
    assert missing == []
    pages = list(tmp_path.rglob("*.html"))
    assert [name_of_page for name_of_page in pages if FOREIGN.search(name_of_page.read_text())] == []
    assert "unpkg.com" not in "".join(page.read_text() for page in pages)


def page_of(name: str) -> str:
    """The file of a document within the site."""
    return re.sub(r"README\.md$", "index.html", name) if name.endswith("README.md") else name.replace(".md", ".html")
