"""A folder of small photos that tests of the feed only read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.feed.feed_cases import write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))
