"""What the page says when a run is not simply running: before its first step, when all is silent, and after its end."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.observing.browser import Sight
from tests.observing.clock import Clock
from tests.observing.test_history import Told, document, line, stage
from tests.observing.test_live_page import begin, made_up, made_up_line, serve
from tests.runs import LIMIT
from workers.observing.goodput import AttemptStart, Goodput, Spent
from workers.observing.live import History, LiveServer, page_server
from workers.observing.live import answers as answering
from workers.observing.live import document as document_module
from workers.observing.live import history as history_module

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * LIMIT)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """That of the coordinator."""
    return Clock(monkeypatch, history_module, document_module)


def by_a_clock_of_its_own(browser: Browser, server: LiveServer, now: float | None = None) -> Sight:
    """A running run's page, see `Sight.take_the_clock`."""
    sight = Sight(browser, server.url)
    sight.take_the_clock(now)
    return sight


def test_before_the_data_set_is_open_there_is_a_word_and_no_empty_boxes(tmp_path: Path, browser: Browser) -> None:
    history = Told()
    with serve(history) as server:
        sight = Sight(browser, server.url)
        sight.wait_for_state("starting")
        assert "data set is being opened" in sight.text("#notice")
        assert not sight.page.locator(".card").first.is_visible()
        begin(history, tmp_path, stages=1, total_steps=10, steps_per_epoch=10, started=time.time())
        sight.wait_for_state("running")
        assert sight.page.locator(".card").first.is_visible()
        assert not sight.page.locator("#notice").is_visible()
        sight.page.close()


def test_a_coordinator_that_is_stopped_is_said_to_be_out_of_reach(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket stays open and its side says nothing, for which a browser alone would wait for ever."""
    monkeypatch.setattr(answering, "HEARTBEAT_SECONDS", 1e9)
    with serve(made_up(tmp_path, 2, 20)) as server:
        sight = by_a_clock_of_its_own(browser, server)
        sight.page.clock.fast_forward(20_000)
        sight.wait("window.told.length > 0")
        sight.page.clock.fast_forward(2_000)
        sight.wait("window.told.length > 1")
        (lost, why), back = sight.value("window.told.slice(0, 2)")
        assert lost == "lost"
        assert "stopped" in why
        assert back == ["running", ""]
        sight.page.close()


def test_a_quiet_run_that_beats_is_within_reach(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "HEARTBEAT_SECONDS", 0.1)
    with serve(made_up(tmp_path, 2, 20)) as server:
        sight = by_a_clock_of_its_own(browser, server)
        sight.stop_the_clock()
        for _ in range(4):
            sight.wait(f"window.heard.beat > {sight.value('window.heard.beat')}")
            sight.page.clock.fast_forward(8_000)
        sight.page.clock.run_for(100)
        assert sight.value("[document.getElementById('state').dataset.state, window.told]") == ["running", []]
        assert sight.value("window.asked.length") == 1, "it never began anew"
        sight.page.close()


def test_a_page_too_many_asks_seldom_and_still_shows_the_run(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_server, "MAX_STREAMS", 0)
    with serve(made_up(tmp_path, 2, 20)) as server:
        sight = by_a_clock_of_its_own(browser, server)
        sight.stop_the_clock()
        for times in (1, 2):
            sight.wait(f"window.heard.error === {times}")
            sight.page.clock.fast_forward(15_000)
            sight.wait(f"window.asked.length === {times + 1}")
        assert all(after - before >= 15_000 for before, after in pairwise(sight.value("window.asked")))
        sight.page.clock.run_for(100)
        assert sight.value("[document.getElementById('state').dataset.state, window.told]") == ["running", []]
        sight.page.close()


def test_why_a_run_failed_is_the_first_thing_to_read(tmp_path: Path, browser: Browser, clock: Clock) -> None:
    history = made_up(tmp_path, 2, 20)
    clock.now = document(history)["facts"]["started"] + 360
    history.run_ended("failed: stage 2 died of signal 9")
    with serve(history) as server:
        sight = Sight(browser, server.url)
        sight.wait_for_state("failed")
        told = sight.text("#notice").lower()
        assert told.split("\n")[0].startswith("failed")
        assert "stage 2 died of signal 9" in told
        assert f"onward report {tmp_path}".lower() in told
        assert sight.text("[data-figure=left] .value") == "6 min", "until it failed, not until its last step"
        assert sight.page.title().startswith("Failed · ")
        sight.page.close()


def ages(path: Path, total: int, age: float, now: float) -> History:
    """20 steps of which the last is so old `now`, in seconds."""
    history = Told()
    begin(history, path, stages=2, total_steps=total, steps_per_epoch=10, started=now - 900)
    for step in range(20):
        history.step_done({**made_up_line(step, 2), "time": now - age - 0.5 * (19 - step)})
    return history


@pytest.mark.parametrize(
    ("total", "age", "state", "words"),
    [
        (1000, 5, "running", "Running"),
        (1000, 601, "stalled", "No step for 10 min"),
        (20, 601, "finishing", "Finishing"),
    ],
)
def test_a_run_without_news_is_not_simply_running(
    tmp_path: Path, browser: Browser, clock: Clock, total: int, age: float, state: str, words: str
) -> None:
    with serve(ages(tmp_path, total, age, clock.now)) as server:
        sight = Sight(browser, server.url)
        sight.wait_for_state(state)
        assert sight.text("#state-text") == words
        sight.page.close()


def test_a_browser_whose_clock_is_wrong_still_knows_how_old_a_step_is(
    tmp_path: Path, browser: Browser, clock: Clock
) -> None:
    with serve(ages(tmp_path, 1000, 5, clock.now)) as server:
        sight = by_a_clock_of_its_own(browser, server, clock.now + 7200)
        sight.wait("document.getElementById('freshness').textContent.startsWith('Last step ')")
        assert " h " not in sight.text("#freshness")
        sight.page.close()


def test_stages_of_one_process_have_no_queue_between_them(tmp_path: Path, browser: Browser) -> None:
    with serve(made_up(tmp_path, 5, 20, processes=2)) as server:  # stages 1-2 and 3-5
        sight = Sight(browser, server.url)
        sight.wait_for_state("running")
        links = sight.page.locator(".link").all_inner_texts()
        assert ["same process" in " ".join(text.split()) for text in links] == [False, True, False, True, True]
        assert ["of 2" in text for text in links] == [True, False, True, False, False]
        sight.page.close()


def test_where_the_time_went_is_told_of_the_whole_run_when_it_is_over(tmp_path: Path, browser: Browser) -> None:
    history = Told()
    begin(history, tmp_path, stages=1, total_steps=4, steps_per_epoch=4, started=time.time())
    for step in range(4):  # in the second half, in which nothing more is fed, nobody waits
        spent = {"busy": float(step + 1), "wait_input": 3.0 * min(step + 1, 2), "wait_output": 0.0}
        history.step_done(line(step, stage(1, step, **spent), time=100.0 + 20 * step))
    with serve(history) as server:
        sight = Sight(browser, server.url)
        assert sight.text("#pipeline .mood >> nth=1") == "computing 100 %"
        history.run_ended("done")
        sight.wait_for_state("done")
        assert sight.text("#pipeline .mood >> nth=1") == "waiting for input 60 %"
        assert sight.text("#window") == "shares of the whole run"
        legend = sight.page.locator(".waits .legend")
        legend.scroll_into_view_if_needed()
        sight.wait("document.querySelectorAll('.waits .legend li').length === 4")
        assert " ".join(legend.inner_text().split()) == "computing 40 % input 60 % room 0 % copying 0 %"
        sight.page.close()


def test_the_goodput_stands_beside_what_the_rest_was_lost_to(tmp_path: Path, browser: Browser) -> None:
    spent = Spent(run=200.0, new=150.0, start=46.0, restart=3.75, repeat=0.25)
    history = Told(goodput=Goodput(AttemptStart(1.0, before=spent)))
    begin(history, tmp_path, stages=1, total_steps=100, started=1.0)
    history.step_done(made_up_line(0, 1))
    with serve(history) as server:
        for width in (1280, 390):
            sight = Sight(browser, server.url, width)
            sight.wait_for_state("running")
            assert sight.text("[data-figure=goodput] .value") == "75.0 %"
            assert sight.text("[data-figure=goodput] .below") == "lost: start 46 s, restarts 4 s"
            assert sight.too_wide <= 0
            sight.page.close()
