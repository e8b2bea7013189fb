"""What is told about the feed: its metrics, its part of the report, and the advice at the end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.observing.recorders import recorder
from tests.workers.feed.feed_cases import config, write_photos
from workers.control.feed_report import PARTS
from workers.control.step_report import StepReport
from workers.coordinator import recorder as recorder_module
from workers.feed import Feed, FeedMeasures

pytestmark = pytest.mark.timeout(120)


@pytest.mark.processes
@pytest.mark.parametrize("workers", [0, 2])
def test_a_feed_measures_itself(tmp_path: Path, workers: int) -> None:
    run = config(write_photos(tmp_path), workers=workers, image_size=64)
    with Feed(run) as feed:
        for _ in feed:
            pass
        measured = feed.measures()
    assert measured.images == 46
    assert measured.workers == workers
    assert tuple(measured.seconds) == PARTS
    assert all(measured.seconds[part] > 0 for part in ("decode", "crop", "jitter", "blur"))
    assert sum(measured.shares().values()) == pytest.approx(1.0)
    assert measured.memory_bytes >= 3 * 2 * 8 * 64 * 64 * 3
    assert measured.wait_seconds == feed.wait_seconds
    assert feed.measures() == measured, "and remembers it when it is closed"


def test_shares_of_nothing_are_zero() -> None:
    assert FeedMeasures().shares() == dict.fromkeys(PARTS, 0.0)


def report(step: int) -> StepReport:
    return StepReport(
        1,
        step,
        loss=0.5,
        terms={},
        learning_rate=0.1,
        skipped=0,
        busy=1.0,
        wait_input=0.0,
        wait_output=0.0,
        queue_depth=0,
        link_bytes=0,
    )


def told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float], skipped: int = 0
) -> tuple[list[str], dict[str, object]]:
    """Notes and report of a run whose steps take a second each, in which the feed was waited for `waits` in all."""
    now = 100.0
    clock = type("Clock", (), {"monotonic": staticmethod(lambda: now), "time": staticmethod(lambda: 0.0)})
    monkeypatch.setattr(recorder_module, "time", clock)
    with recorder(folder, len(waits)) as joined:
        for step, wait in enumerate(waits):
            joined.feed = FeedMeasures(wait_seconds=wait, images=8 * step + 8, skipped=skipped, workers=3)
            joined.batch_sent(step, 0, 8, 1)
            now += 1.0
            joined.stage_report(report(step))
    return joined.feed_notes(), joined.feed_report()


def test_a_run_that_waits_for_images_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, values = told(tmp_path, monkeypatch, [30.0 + 0.25 * step for step in range(21)])
    assert notes == ["the run waited for images 24 % of the time: raise data.workers (it is 3)"]
    assert values["wait_share"] == pytest.approx(0.25 * 19 / 20), "the start, until the second step enters, is left out"
    assert values["wait_seconds"] == 35.0
    assert values["images"] == 168
    assert set(values["shares"]) == set(PARTS)  # type: ignore[arg-type]


@pytest.mark.parametrize(("steps", "each"), [(19, 0.25), (21, 0.05)])
def test_a_short_run_and_a_fast_feed_are_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, each: float
) -> None:
    notes, values = told(tmp_path, monkeypatch, [each * step for step in range(steps)])
    assert notes == []
    assert values["wait_share"] == pytest.approx(each * (steps - 2) / (steps - 1))


def test_the_feed_of_a_first_stage_comes_with_its_reports(tmp_path: Path) -> None:
    with recorder(tmp_path) as joined:
        joined.batch_sent(0, 0, 8, 1)
        joined.stage_report(replace(report(0), feed=FeedMeasures(images=8, workers=2)))
    assert joined.feed_report()["workers"] == 2
    assert "feed" not in json.loads((tmp_path / "metrics.jsonl").read_text())["stages"][0]


def test_stand_ins_are_mentioned_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, values = told(tmp_path, monkeypatch, [0.0, 0.0], skipped=4)
    assert notes == ["4 times another image stood in for one that cannot be decoded; see the log"]
    assert values["skipped"] == 4


def test_a_run_of_one_step_has_no_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, values = told(tmp_path, monkeypatch, [1.0])
    assert notes == []
    assert values["wait_share"] == 0.0


def test_throughput_counts_the_fill_of_a_long_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 32 stages and 30 steps the summary said 1029 images/s; it was 188, for most of such a run is the fill."""
    now = 0.0
    clock = type("Clock", (), {"monotonic": staticmethod(lambda: now), "time": staticmethod(lambda: 0.0)})
    monkeypatch.setattr(recorder_module, "time", clock)
    with recorder(tmp_path, 3) as joined:
        for step in range(3):
            joined.batch_sent(step, 0, 8, 1)
            now += 1.0
        assert joined._seconds == 0.0, "nothing is done yet"
        now = 30.0
        for step in range(3):
            now += 1.0
            joined.stage_report(report(step))
    assert (joined.images - joined._first_images, joined._seconds) == (16, 32.0)
