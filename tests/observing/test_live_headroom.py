"""The page says how far a run is from its limit: beside images/s, in a sentence and in the chart, once it is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.observing.browser import Sight
from tests.observing.test_history import Told, document, facts
from tests.observing.test_live_page import begin, made_up_line, serve
from tests.pipeline.small import small_config
from tests.runs import LIMIT
from workers.observing.headroom import Headroom
from workers.observing.headroom_watch import HeadroomWatch

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOUND = Headroom(
    measured=14200.0, predicted=14400.0, bound=24000.0, stages=(1,), cause="feed", reason="stage 1 waits for images"
)

LIMITS = {"bound_images_per_second": 24000.0, "predicted_images_per_second": 14400.0}


def watched(path: Path) -> tuple[Told, HeadroomWatch]:
    watch = HeadroomWatch(small_config(), 20.0)
    history = Told(headroom=watch)
    history.run_started(facts(path))
    return history, watch


def test_the_page_is_told_what_is_known_now(tmp_path: Path) -> None:
    history, watch = watched(tmp_path)
    history.step_done(made_up_line(0, 2))
    assert document(history)["now"]["headroom"] is None
    watch.latest = FOUND
    history.step_done(
        {**made_up_line(1, 2), "bound_images_per_second": 24000.0, "predicted_images_per_second": 14400.0}
    )
    found = document(history)
    assert found["now"]["headroom"] == json.loads(json.dumps({"measured": 14200.0, **FOUND.to_json()}))
    assert [found["columns"]["0"][name] for name in LIMITS] == [[None, value] for value in LIMITS.values()]
    again = Told()
    again.run_started(facts(tmp_path))
    assert document(again)["now"]["headroom"] is None, "nobody computes it"


@pytest.mark.slow
@pytest.mark.timeout(3 * LIMIT)
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_shown_once_it_is_known_and_of_the_whole_run_at_its_end(
    tmp_path: Path, browser: Browser, width: int
) -> None:
    history, watch = watched(tmp_path)
    begin(history, tmp_path, stages=2, total_steps=40, started=0.0, config={"data": {"batch_size": 64}})
    history.step_done(made_up_line(0, 2))
    with serve(history) as server:
        sight = Sight(browser, server.url, width)
        sight.wait_for_state("running")
        assert sight.text("[data-figure=rate] .below") == "batches of 64"
        assert not sight.page.locator("#headroom").is_visible()
        watch.latest = FOUND
        history.step_done({**made_up_line(1, 2), **LIMITS})
        sight.wait("!document.getElementById('headroom').hidden")
        below = sight.text("[data-figure=rate] .below").replace("\u00a0", " ").replace("\u202f", ",")
        assert below == "bound 24,000 · predicted 14,400"
        assert sight.text("#headroom") == "59 % of what stage 1 alone would allow: stage 1 waits for images"
        assert sight.too_wide <= 0
        chart = "section[aria-label='Throughput']"
        sight.page.locator(chart).scroll_into_view_if_needed()
        sight.wait(f'document.querySelectorAll("{chart} .legend li").length === 3')
        assert all(name in sight.text(f"{chart} .legend") for name in ("predicted", "bound"))
        watch.latest = replace(FOUND, measured=23900.0, predicted=None, stages=(), cause=None, reason="")
        history.run_ended("done")
        sight.wait_for_state("done")
        sight.wait("document.getElementById('headroom').textContent.startsWith('100 %')")
        assert sight.text("#headroom") == "100 % of what computing alone would allow"
        assert sight.text("[data-figure=rate] .value").replace("\u202f", ",") == "23,900"
        assert sight.console == []
        sight.page.close()
