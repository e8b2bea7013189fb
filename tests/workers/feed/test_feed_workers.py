"""Worker processes of the feed: the same bits whatever befalls them, and none left behind."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from itertools import count as counting
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.data.sets.files import FileImages
from pipeline.errors import TrainingError, UserError
from tests.marks import slow
from tests.waiting import wait_until
from tests.workers.feed.feed_cases import (
    assert_same,
    batches,
    config,
    fault_in_workers,
    ready,
    workers_of,
    write_photos,
)
from tests.workers.links.processes import alive, named_memory
from workers.feed import Feed, FeedBatch, feed, pool

pytestmark = pytest.mark.timeout(600)  # on a very busy machine three workers start in minutes
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def whole(photos: Path) -> list[FeedBatch]:
    """What every feed of these tests must give, made without processes."""
    return batches(config(photos))


@pytest.mark.processes
@pytest.mark.parametrize("count", [1, 3])
def test_the_same_bits_for_any_number_of_workers(
    photos: Path, whole: list[FeedBatch], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.feed.batch_plan.CHUNK_PIXELS", 3 * 16 * 16)  # several pieces a batch, uneven ones
    monkeypatch.setattr("workers.feed.batch_plan.CHUNKS_PER_WORKER", 1)
    before = named_memory(os.getpid())
    with Feed(config(photos, workers=count), start_step=2) as running:
        assert named_memory(os.getpid()) == before
        found = [replace(batch, views=batch.views.clone()) for batch in running]
        pids = [process.process.pid for process in workers_of(running)]
        measured = running.measures()
    assert_same(found, whole[2:])
    assert len(pids) == count
    assert not any(alive(pid) for pid in pids)
    images = sum(batch.views.shape[1] for batch in found)
    assert (measured.images, measured.workers, measured.restarts) == (images, count, 0)


@pytest.mark.processes
def test_a_killed_worker_is_replaced_and_the_bits_stay_the_same(photos: Path) -> None:
    run, expected = config(photos, workers=2, epochs=40), batches(config(photos, epochs=40))
    found, killed = [], 0
    with Feed(run) as running:
        for batch in running:
            found.append(replace(batch, views=batch.views.clone()))
            if batch.step in (0, 50):
                wait_until(lambda: ready(running, 2), "workers")
                os.kill(workers_of(running)[batch.step % 2].process.pid, signal.SIGKILL)
                wait_until(lambda before=killed: running.measures().restarts > before, "another")
                killed += 1
    assert_same(found, expected)
    assert running.measures().restarts == 2
    assert running.measures().images == 40 * 23


@pytest.mark.processes
def test_a_worker_that_dies_in_the_middle_of_a_piece_spoils_nothing(
    photos: Path, whole: list[FeedBatch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "died"
    fault = f"""
        if index == 7 and not os.path.exists({str(mark)!r}):
            open({str(mark)!r}, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    fault_in_workers(tmp_path, monkeypatch, fault)
    with Feed(config(photos, workers=1)) as running:
        found = [replace(batch, views=batch.views.clone()) for batch in running]
    assert mark.exists()
    assert running.measures().restarts == 1
    assert_same(found, whole)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("SIGKILL", "memory ran out: lower data.workers"),
        slow("SIGBUS", "/dev/shm"),
        slow("SIGSEGV", "A library crashed"),
    ],
)
def test_an_image_that_kills_every_worker_ends_the_run_by_name(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    fault_in_workers(tmp_path, monkeypatch, f"if index == 7: os.kill(os.getpid(), signal.{name})")
    with Feed(config(photos, workers=1)) as running, pytest.raises(TrainingError) as caught:
        list(running)
    number = getattr(signal, name).value
    message = str(caught.value)
    assert message.startswith("feed workers died 3 times in a row; the last at image '")
    assert "07.jpg" in message or "14.jpg" in message  # image 7 of all is the eighth of class 0
    assert f"killed by signal {number} ({name}). " in message
    assert reason in message
    assert running.measures().restarts == pool.DEATHS - 1


@pytest.mark.processes
def test_workers_that_cannot_start_end_the_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'workers.feed.worker_main' in sys.orig_argv: os._exit(7)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with (
        Feed(config(photos, workers=2)) as running,
        pytest.raises(TrainingError, match=r"died 3 times in a row; the last: it ended with exit code 7"),
    ):
        next(running)


@pytest.mark.processes
def test_a_worker_that_hangs_is_waited_for_and_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other worker goes on with everything that was not given to the one that hangs; then time begins to pass."""
    ticks, expected = counting(), 8 + 8 + 7 - pool.AHEAD  # pieces, of one image each

    def monotonic() -> float:
        return float(next(ticks) if running._ring.made >= expected and running._ring.current() == [7] else 0)

    monkeypatch.setattr("workers.feed.batch_plan.CHUNK_PIXELS", 16 * 16)
    fault_in_workers(tmp_path, monkeypatch, "if index == 7: time.sleep(600)")
    with Feed(config(photos, workers=2, timeout=2.0)) as running:
        wait_until(lambda: ready(running, 2), "workers")
        monkeypatch.setattr(feed, "time", SimpleNamespace(monotonic=monotonic))
        with pytest.raises(TrainingError, match=r"held up by image '.*\.jpg'.*link\.timeout"):
            list(running)
        assert running._ring.current() == [7]
        assert running._ring.made >= expected
    assert not any(alive(process.process.pid) for process in workers_of(running))


@pytest.mark.processes
def test_a_defect_in_a_worker_is_told_in_words(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault_in_workers(tmp_path, monkeypatch, "if index == 7: raise ZeroDivisionError('a defect')")
    expected = r"feed worker 1 failed at image '.*\.jpg': ZeroDivisionError: a defect"
    with Feed(config(photos, workers=1)) as running, pytest.raises(TrainingError, match=expected):
        list(running)


@pytest.mark.processes
def test_what_libraries_print_does_not_get_between_the_answers(
    photos: Path, whole: list[FeedBatch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault_in_workers(tmp_path, monkeypatch, "print('a word from a library', flush=True)")
    assert_same(batches(config(photos, workers=1)), whole)


@pytest.mark.processes
def test_an_image_that_cannot_be_decoded_ends_the_feed_by_name(tmp_path: Path) -> None:
    victim = write_photos(tmp_path) / "class1" / "07.jpg"
    victim.write_bytes(victim.read_bytes()[:200])
    messages = []
    for count in (0, 2):
        with Feed(config(tmp_path, workers=count)) as running, pytest.raises(UserError) as caught:
            list(running)
        messages.append(str(caught.value))
    assert str(victim) in messages[0]
    assert messages[0] == messages[1]


@pytest.mark.processes
@pytest.mark.parametrize("count", [0, 2])
def test_files_in_memory_are_read_once(tmp_path: Path, whole: list[FeedBatch], count: int) -> None:
    """Also by workers that start when the folder is gone."""
    root = write_photos(tmp_path / "photos")
    with Feed(config(root, workers=count, in_memory=True)) as running:
        shutil.rmtree(root)
        found = [replace(batch, views=batch.views.clone()) for batch in running]
    assert_same(found, whole)


@pytest.mark.processes
def test_workers_know_the_images_as_their_parent_does(tmp_path: Path, whole: list[FeedBatch]) -> None:
    """A file that comes in between would shift the numbers of all that follow."""
    root = write_photos(tmp_path / "photos")
    with Feed(config(root, workers=1)) as running:
        shutil.copy(root / "class0" / "00.jpg", root / "class0" / "000.jpg")
        found = [replace(batch, views=batch.views.clone()) for batch in running]
    assert_same(found, whole)


@pytest.mark.processes
def test_workers_are_kept_on_their_cores(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = min(os.sched_getaffinity(0))
    asked = []

    def cores(workers: int, busy: int, allowed: set[int]) -> list[int | None]:
        asked.append((workers, busy, allowed))
        return [None, None, core, None]

    monkeypatch.setattr(feed, "cores_for", cores)
    run = config(photos, workers=2, epochs=100, drop_last=True)
    with Feed(run, part=(1, 2)) as running:
        wait_until(lambda: ready(running, 2), "workers")
        assert [os.sched_getaffinity(process.process.pid) for process in workers_of(running)] == [
            {core},
            os.sched_getaffinity(0),
        ]
    assert asked == [(4, run.num_stages * run.threads, os.sched_getaffinity(0))]


def test_the_system_reads_ahead_what_a_piece_needs(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected: list[int] = []
    monkeypatch.setattr(FileImages, "prefetch", lambda images, indices: expected.extend(indices))
    made = batches(config(photos))
    assert expected == [number for batch in made for number in batch.samples.tolist()]
