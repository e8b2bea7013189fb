"""What tests of the feed share: a folder of small photos that they only read, and workers that start at once."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.workers.feed.feed_cases import write_photos
from tests.workers.feed.forked_workers import ForkedWorker
from workers.feed import worker_process


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(autouse=True)
def _workers_are_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a process that has imported torch, which takes each two seconds; real runs start them as interpreters."""
    monkeypatch.setattr(worker_process, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": ForkedWorker}))
