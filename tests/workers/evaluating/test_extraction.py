"""Threads that make the batches of an extraction: in order, only a few ahead, as many as memory allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UserError
from tests.workers.evaluating.evaluating_runs import (
    CPU,
    image_folder,
    network,
    small_config,
)
from workers.evaluating.extraction import Batch, Extractor, in_order


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data"))


def test_results_come_in_order_and_only_a_few_ahead() -> None:
    started: list[int] = []

    def act(batch: Batch) -> int:
        started.append(batch[0])
        return batch[0]

    results = in_order(act, [range(n, n + 1) for n in range(50)], threads=3)
    assert [next(results) for _ in range(5)] == list(range(5))
    assert len(started) <= 5 + 3 + 1
    results.close()
    assert len(started) <= 5 + 3 + 1


def test_an_error_in_a_thread_is_raised_here() -> None:
    def act(batch: Batch) -> int:
        if batch[0] == 2:
            raise UserError("image 2 is damaged")
        return batch[0]

    with pytest.raises(UserError, match=r"^image 2 is damaged$"):
        list(in_order(act, [range(n, n + 1) for n in range(9)], threads=2))


def test_threads_are_as_many_as_fit_into_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(root, workers=8)
    extractor = Extractor(config, network(config), CPU)
    monkeypatch.setattr("workers.evaluating.extraction.available_bytes", lambda: None)
    assert extractor._fitting(4) == 8
    # Block 1 ends in 8 maps of 8 x 8, four times; the expansion's 8 maps come twice; 4 bytes a number, 4 images.
    monkeypatch.setattr("workers.evaluating.extraction.available_bytes", lambda: 2 * 3 * 4 * (4 + 2) * 8 * 64 * 4)
    assert extractor._fitting(4) == 3
    monkeypatch.setattr("workers.evaluating.extraction.available_bytes", lambda: 10)
    assert extractor._fitting(4) == 1
