"""Images that cannot be decoded, with `data.on_error: skip`: the same stand-ins whoever meets them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.augment.views import ViewMaker
from pipeline.data.sets.datasets import open_dataset
from pipeline.errors import UserError
from tests.workers.feed.feed_cases import assert_same, batches, config, write_photos
from workers.feed import Feed

pytestmark = pytest.mark.timeout(240)
BROKEN = (3, 4, 17)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of which three cannot be decoded: numbers 3 and 4 in class 0, 17 in class 1."""
    root = write_photos(tmp_path_factory.mktemp("photos"))
    files = sorted(root.glob("class*/*.jpg"))
    for number in BROKEN:
        files[number].write_bytes(b"no image")
    return root


@pytest.mark.processes
def test_stand_ins_are_the_same_for_any_number_of_workers_and_after_a_restart(damaged: Path) -> None:
    whole = batches(config(damaged, on_error="skip", labels=True))
    for workers in (1, 3):
        run = config(damaged, on_error="skip", labels=True, workers=workers)
        assert_same(batches(run, start_step=1), whole[1:])


def test_a_stand_in_brings_its_pixels_and_its_label(damaged: Path) -> None:
    run = config(damaged, on_error="skip", labels=True)
    images, maker = open_dataset(run.data, "train"), ViewMaker(run.data, 2, 5)
    intact = [index for index in range(23) if index not in BROKEN]
    seen = set()
    for batch in batches(run):
        for row, index in enumerate(batch.samples.tolist()):
            if index not in BROKEN:
                continue
            found = []
            for other in intact:
                views = np.empty((2, 16, 16, 3), np.uint8)
                maker.make(images.pixels(other), batch.epoch, index, list(views))
                if np.array_equal(views, batch.views[:, row].numpy()):
                    found.append(other)
            assert len(found) == 1
            assert batch.labels is not None
            assert batch.labels[row] == images.label(found[0])
            seen.add((batch.epoch, index))
    assert len(seen) == 2 * len(BROKEN)


@pytest.mark.processes
@pytest.mark.parametrize("workers", [0, 2])
def test_each_is_named_once_and_counted_every_time(
    damaged: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Feed(config(damaged, on_error="skip", workers=workers)) as feed:
        for _ in feed:
            pass
    assert feed.measures().skipped == 2 * len(BROKEN)
    words = [record.getMessage() for record in caplog.records]
    files = sorted(damaged.glob("class*/*.jpg"))
    assert len(words) == len(BROKEN)
    for number in BROKEN:
        assert sum(f"'{files[number]}' cannot be decoded" in word for word in words) == 1
    assert all("data.on_error: skip" in word for word in words)


@pytest.mark.processes
@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_of_nothing_but_broken_files_ends_the_run(tmp_path: Path, workers: int) -> None:
    for path in write_photos(tmp_path).glob("class*/*.jpg"):
        path.write_bytes(b"no image")
    run = config(tmp_path, on_error="skip", workers=workers)
    with Feed(run) as feed, pytest.raises(UserError, match=r"\.jpg' cannot be decoded.*tried in its place"):
        next(feed)
