"""The feed: the same bits however they are made, bounded, stoppable, and plain about what goes wrong."""

from __future__ import annotations

import os
import threading
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.config import Config, DataConfig, TrainConfig
from pipeline.data.augment.views import ViewMaker
from pipeline.data.packing import unpack
from pipeline.data.sampler import StepPlan
from pipeline.data.sets.datasets import open_dataset
from pipeline.errors import TrainingError, UserError
from tests.waiting import LIMIT, wait_until
from tests.workers.feed.feed_cases import assert_same, batches, config, write_photos
from workers.feed import Feed
from workers.feed import backpressure as gate
from workers.feed import batch_plan as batch_plan
from workers.feed import feed as feed_module
from workers.feed import view_worker as making

pytestmark = pytest.mark.timeout(240)


def feed_threads() -> int:
    return sum(thread.name == "feed" for thread in threading.enumerate())


@pytest.mark.parametrize("backend", ["fast", "pil"])
def test_batches_are_the_planned_images_augmented(photos: Path, backend: str) -> None:
    run = config(photos, augment_backend=backend)
    images, plan = open_dataset(run.data, "train"), StepPlan(23, 8, 2, False, seed=5)
    found = batches(run)
    assert [(b.step, b.epoch, b.last) for b in found] == [(s, s // 3, s == 5) for s in range(6)]
    maker = ViewMaker(run.data, 2, 5)
    for batch in found:
        epoch, indices = plan.batch(batch.step)
        np.testing.assert_array_equal(batch.samples, indices)
        assert batch.labels is None
        assert batch.views.dtype == torch.uint8
        assert batch.views.shape == (2, len(indices), 16, 16, 3)
        assert batch.views.is_contiguous()
        for row, index in enumerate(indices.tolist()):
            expected = np.empty((2, 16, 16, 3), np.uint8)
            maker.make(images.pixels(index), epoch, index, list(expected))
            np.testing.assert_array_equal(batch.views[:, row].numpy(), expected)


def test_a_run_can_start_at_any_step(photos: Path) -> None:
    whole = batches(config(photos))
    for start in (1, 3, 5):
        assert_same(batches(config(photos), start), whole[start:])
    assert batches(config(photos), 6) == []


def test_a_replica_gets_its_rows_of_every_batch(photos: Path) -> None:
    run = config(photos, drop_last=True, labels=True)
    whole = batches(run)
    halves = [batches(run, part=(number, 2)) for number in (0, 1)]
    for batch, *parts in zip(whole, *halves, strict=True):
        assert torch.equal(torch.cat([part.views for part in parts], dim=1), batch.views)
        np.testing.assert_array_equal(np.concatenate([part.samples for part in parts]), batch.samples)
        assert batch.labels is not None
        np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), batch.labels)  # type: ignore[arg-type]
        np.testing.assert_array_equal(batch.labels, batch.samples >= 12)  # 12 images of the first class


@pytest.mark.parametrize("sizes", [(16, 16), (16, 16, 8)])
def test_views_of_several_sizes_travel_packed(photos: Path, sizes: tuple[int, ...]) -> None:
    """The two views are the same bits beside a smaller one as alone."""
    plain, views = batches(config(photos)), tuple({"size": size} for size in sizes)
    found = batches(config(photos, views=views))
    for batch, expected in zip(found, plain, strict=True):
        parts = unpack(batch.views, [(size, size, 3) for size in sizes])
        assert len(parts) == len(sizes)
        assert torch.equal(torch.stack(parts[:2]), expected.views)
        assert (batch.views.dim() == 3) == (len(set(sizes)) > 1)
        assert all(part.float().std() > 5 for part in parts)


def test_resolution_grows_from_epoch_to_epoch(photos: Path) -> None:
    growing = {"start_size": 8, "start_epoch": 0, "end_epoch": 2}
    run = config(photos, epochs=3, progressive=growing)
    found = batches(run)
    assert [batch.views.shape[2] for batch in found] == [8, 8, 8, 12, 12, 12, 16, 16, 16]
    plain = batches(config(photos, epochs=3))
    assert_same(found[6:], plain[6:])
    assert_same(batches(run, 4), found[4:])


def test_bundled_images_feed_a_whole_epoch() -> None:
    run = Config(data=DataConfig(batch_size=500, image_size=28), train=TrainConfig(epochs=300, max_steps=3))
    with Feed(run) as feed:
        assert (feed.steps_per_epoch, feed.total_steps) == (20, 3)
        found = [(batch.last, batch.views.float().mean().item()) for batch in feed]
    assert [last for last, _ in found] == [False, False, True]
    assert 40 < found[0][1] < 130


def test_a_batch_stays_while_two_more_are_made_and_no_further(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused, is_open = [], gate.SlotCredits.is_open

    def asked(self: gate.SlotCredits, number: int) -> bool:
        if not (answer := is_open(self, number)):
            refused.append(number)
        return answer

    monkeypatch.setattr(gate.SlotCredits, "is_open", asked)
    monkeypatch.setattr(gate, "POLL_SECONDS", 0.01)
    with Feed(config(photos, epochs=20, drop_last=True)) as feed:
        first = next(feed)
        kept = first.views.clone()
        wait_until(lambda: refused.count(3) >= 3, "the wait of the fourth")
        assert feed._ring.made == 24
        assert torch.equal(first.views, kept)
        places = [first.views.data_ptr()] + [next(feed).views.data_ptr() for _ in range(5)]
        assert places[:3] == places[3:]
        assert len(set(places)) == 3
        assert feed.measures().memory_bytes >= 3 * first.views.numel()


def test_close_ends_an_unfinished_feed(photos: Path) -> None:
    descriptors = os.listdir("/proc/self/fd")
    feed = Feed(config(photos, epochs=1000))
    next(feed)
    feed.close()
    feed.close()
    assert feed_threads() == 0
    assert set(os.listdir("/proc/self/fd")) <= set(descriptors)
    with pytest.raises(TrainingError, match="closed"):
        next(feed)
    assert feed.measures().images == 8


def test_an_image_that_cannot_be_decoded_ends_the_feed_by_name(tmp_path: Path) -> None:
    victim = write_photos(tmp_path) / "class1" / "07.jpg"
    victim.write_bytes(victim.read_bytes()[:200])
    with Feed(config(tmp_path)) as feed, pytest.raises(UserError) as caught:
        list(feed)
    message = str(caught.value)
    assert str(victim) in message
    assert "Traceback" not in message
    assert "\n" not in message


def test_a_feed_that_makes_no_progress_is_given_up_by_name(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, stuck, now = (
        threading.Event(),
        threading.Event(),
        [0.0],
    )  # time passes only once there is no progress any more
    run = config(photos, timeout=0.5)
    victim = StepPlan.of(run, 23).batch(0)[1].tolist()[3]

    class Stuck(ViewMaker):
        def make(self, pixels: object, epoch: int, index: int, out: object) -> None:
            if index == victim:
                stuck.set()
                release.wait(LIMIT)

    def monotonic() -> float:
        now[0] += stuck.is_set()
        return now[0]

    monkeypatch.setattr(making, "ViewMaker", Stuck)
    monkeypatch.setattr(feed_module, "time", SimpleNamespace(monotonic=monotonic))
    name = open_dataset(run.data, "train").name_of(victim)
    with Feed(run) as feed:
        expected = rf"produced nothing for 1 s while step 0 .*held up by image '{name}'.*link\.timeout"
        with pytest.raises(TrainingError, match=expected):
            next(feed)
        release.set()


def test_a_slow_feed_that_makes_progress_is_not_given_up(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the images takes half a second, at the end of which the consumer has looked for it."""
    looked, now = threading.Event(), [100.0]

    class Slow(ViewMaker):
        def make(self, *arguments: object) -> None:
            looked.clear()
            assert looked.wait(LIMIT)
            now[0] += 0.5
            super().make(*arguments)  # type: ignore[arg-type]

    def monotonic() -> float:
        seen = now[0]
        looked.set()
        return seen

    monkeypatch.setattr(making, "ViewMaker", Slow)
    monkeypatch.setattr(feed_module, "time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 0.01)
    with Feed(config(photos, epochs=1, batch_size=16, drop_last=True, timeout=0.8)) as running:
        assert next(running).views.shape[1] == 16
        assert running.wait_seconds == 16 * 0.5


def test_an_unexpected_error_reaches_the_consumer(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ViewMaker):
        def make(self, *arguments: object) -> None:
            raise ZeroDivisionError("a defect")

    monkeypatch.setattr(making, "ViewMaker", Broken)
    with Feed(config(photos)) as feed, pytest.raises(ZeroDivisionError, match="a defect"):
        next(feed)


def test_a_data_set_that_is_not_there_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        Feed(config(tmp_path / "nowhere"))
    assert feed_threads() == 0


def test_memory_that_cannot_be_had_fails_at_once(photos: Path) -> None:
    with pytest.raises(TrainingError, match=r"GB of shared memory for 3 batches.*Lower data\.batch_size"):
        Feed(config(photos, image_size=2**20))
    assert feed_threads() == 0


@pytest.mark.parametrize(
    ("rows", "size", "workers", "expected"),
    [(128, 224, 1, 64), (128, 224, 8, 4), (2048, 224, 4, 64), (128, 32, 8, 16), (8, 224, 16, 1), (23, 96, 2, 3)],
)
def test_pieces_are_many_enough_for_the_workers_and_large_enough_for_the_messages(
    photos: Path, rows: int, size: int, workers: int, expected: int
) -> None:
    plan = batch_plan.BatchPlan(config(photos, batch_size=rows, image_size=size), rows, 0, (0, 1))
    work = batch_plan.BatchTask(0, 0, 0, np.arange(rows))
    assert plan.chunk_rows(work, workers) == expected
    chunks = list(work.chunks(expected))
    assert [index for chunk in chunks for index in chunk.samples] == list(range(rows))
    assert [chunk.first for chunk in chunks] == list(range(0, rows, expected))
    file = BytesIO(b"".join(chunk.to_bytes() for chunk in chunks))
    assert list(iter(lambda: batch_plan.Chunk.read(file), None)) == chunks
