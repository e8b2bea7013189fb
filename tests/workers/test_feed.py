"""The feed: the same bits however they are made, bounded, stoppable, and plain about what goes wrong."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import Config, Data, Link, Train
from pipeline.data.augment import make_views
from pipeline.data.datasets import open_dataset
from pipeline.data.sampler import StepPlan
from pipeline.errors import TrainingError, UserError
from workers import feed as feed_module
from workers.feed import Feed, FeedBatch

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """23 small photos in two classes."""
    rng = np.random.default_rng(0)
    for i in range(23):
        folder = tmp_path / f"class{i % 2}"
        folder.mkdir(exist_ok=True)
        size = (20 + i, 30, 3) if i % 3 else (25, 25)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{i:02}.jpg")
    return tmp_path


def config(root: Path, *, workers: int = 0, epochs: int = 2, timeout: float = 30.0, **data: object) -> Config:
    section = {"name": "image_folder", "root": str(root), "batch_size": 8, "image_size": 16, "drop_last": False}
    return Config(
        seed=5,
        data=Data(**{**section, "workers": workers, **data}),  # type: ignore[arg-type]
        train=Train(epochs=epochs),
        link=Link(timeout=timeout),
    )


def batches(config: Config, start_step: int = 0) -> list[FeedBatch]:
    with Feed(config, start_step) as feed:
        return list(feed)


def assert_same(left: list[FeedBatch], right: list[FeedBatch]) -> None:
    assert [(b.step, b.epoch, b.last) for b in left] == [(b.step, b.epoch, b.last) for b in right]
    assert all(torch.equal(a.views, b.views) for a, b in zip(left, right, strict=True))


def feed_threads() -> int:
    return sum(thread.name == "feed" for thread in threading.enumerate())


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_batches_are_the_planned_images_augmented(photos: Path) -> None:
    run = config(photos)
    images, plan = open_dataset(run.data, "train"), StepPlan(23, 8, 2, False, seed=5)
    found = batches(run)
    assert [(b.step, b.epoch, b.last) for b in found] == [(s, s // 3, s == 5) for s in range(6)]
    for batch in found:
        epoch, indices = plan.batch(batch.step)
        assert batch.views.dtype == torch.uint8
        assert batch.views.shape == (2, len(indices), 3, 16, 16)
        assert batch.views.is_contiguous()
        for row, index in enumerate(indices.tolist()):
            expected = make_views(images.image(index), run.data.augment, 16, 2, 5, epoch, index)
            np.testing.assert_array_equal(batch.views[:, row].numpy(), expected)


def test_a_run_can_start_at_any_step(photos: Path) -> None:
    whole = batches(config(photos))
    for start in (1, 3, 5):
        assert_same(batches(config(photos), start), whole[start:])
    assert batches(config(photos), 6) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_bits_for_any_number_of_workers(photos: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "CHUNK_ROWS", 3)  # several chunks a batch, uneven ones
    whole = batches(config(photos))
    assert_same(batches(config(photos, workers=workers), start_step=2), whole[2:])
    assert active_children() == []
    assert feed_threads() == 0


def test_bundled_images_feed_a_whole_epoch() -> None:
    run = Config(data=Data(batch_size=500, image_size=28), train=Train(epochs=300, max_steps=3))
    with Feed(run) as feed:
        assert (feed.steps_per_epoch, feed.total_steps) == (20, 3)
        found = list(feed)
    assert [b.last for b in found] == [False, False, True]
    assert 0 < feed.wait_seconds < 30
    assert 40 < found[0].views.float().mean() < 130


def test_at_most_two_batches_are_made_ahead(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = Feed._augment_here
    monkeypatch.setattr(Feed, "_augment_here", lambda self, step: (made.append(step), original(self, step))[1])
    with Feed(config(photos, epochs=20)) as feed:
        wait_for(lambda: len(made) == 3)  # two wait in the queue, one waits for a place
        time.sleep(0.6)
        assert made == [0, 1, 2]
        next(feed)
        wait_for(lambda: len(made) == 4)


@pytest.mark.parametrize("workers", [0, 1])
def test_close_ends_an_unfinished_feed(photos: Path, workers: int) -> None:
    feed = Feed(config(photos, workers=workers, epochs=1000))
    next(feed)
    started = time.monotonic()
    feed.close()
    feed.close()
    assert time.monotonic() - started < 10
    assert feed_threads() == 0
    assert active_children() == []
    with pytest.raises(TrainingError, match="closed"):
        next(feed)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_ends_the_feed_by_name(photos: Path, workers: int) -> None:
    victim = photos / "class1" / "07.jpg"
    victim.write_bytes(victim.read_bytes()[:200])
    with Feed(config(photos, workers=workers)) as feed, pytest.raises(UserError) as caught:
        list(feed)
    message = str(caught.value)
    assert f"image '{victim}' cannot be decoded" in message
    assert "Traceback" not in message
    assert "\n" not in message
    assert active_children() == []  # even though the error is still at hand


@pytest.mark.parametrize("busy", [True, False])
def test_a_killed_worker_is_named(photos: Path, busy: bool) -> None:
    """Idle, it dies with finished chunks that nobody has fetched yet; these are lost with it."""
    with Feed(config(photos, workers=2, epochs=1000)) as feed:
        next(feed)
        if not busy:
            time.sleep(1.0)
        victim = min(active_children(), key=lambda child: child.pid or 0)
        os.kill(victim.pid or 0, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(TrainingError, match=rf"feed worker \(process {victim.pid}\) died.*memory ran out"):
            list(feed)
        assert time.monotonic() - started < 40
    assert active_children() == []


def test_a_connection_that_stays_broken_is_reported(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __next__(self) -> None:
            time.sleep(0.01)
            raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(feed_module, "DEATH_SECONDS", 0.2)
    with Feed(config(photos)) as feed, pytest.raises(TrainingError, match=r"broke \(.*reset by peer\)\. Start"):
        feed._receive(Broken())  # type: ignore[arg-type]


def test_a_feed_that_makes_no_progress_is_given_up(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def stuck(*_: object, **__: object) -> None:
        release.wait(30)
        raise feed_module.Stopped

    monkeypatch.setattr(feed_module, "make_views", stuck)
    with Feed(config(photos, timeout=0.5)) as feed:
        with pytest.raises(TrainingError, match=r"produced nothing for 1 s while step 0 .*link\.timeout"):
            next(feed)
        release.set()


def test_a_slow_feed_that_makes_progress_is_not_given_up(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*arguments: object, **keys: object) -> object:
        time.sleep(0.15)
        return make_views(*arguments, **keys)  # type: ignore[arg-type]

    monkeypatch.setattr(feed_module, "CHUNK_ROWS", 2)
    monkeypatch.setattr(feed_module, "make_views", slow)
    with Feed(config(photos, timeout=0.8)) as feed:
        assert next(feed).views.shape[1] == 8
        assert feed.wait_seconds > 1.0


def test_an_unexpected_error_reaches_the_consumer(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(feed_module, "make_views", broken)
    with Feed(config(photos)) as feed, pytest.raises(ZeroDivisionError, match="a defect"):
        next(feed)


def test_a_data_set_that_is_not_there_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        Feed(config(tmp_path / "nowhere"))
    assert feed_threads() == 0
