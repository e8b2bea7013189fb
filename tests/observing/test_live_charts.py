"""What the charts of the page show: gaps, logarithms, rates, a part of the run, and numbers of any size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.observing.browser import Sight
from tests.observing.test_history import Told, line, stage
from tests.observing.test_live_page import begin, made_up, made_up_line, serve
from tests.runs import LIMIT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * LIMIT)]


def legend(sight: Sight, number: int) -> str:
    return str(sight.page.locator("section[aria-label=Loss] .legend li").nth(number).inner_text())


def test_a_loss_that_is_not_finite_is_said_and_leaves_a_gap(tmp_path: Path, browser: Browser) -> None:
    history = made_up(tmp_path, 2, 20)
    for step in range(20, 25):
        broken: dict[str, Any] = {"loss": None, "skipped": step - 19}
        history.step_done(line(step, stage(1, step, **broken), stage(2, step, loss=None), time=time.time()))
    with serve(history) as server:
        sight = Sight(browser, server.url)
        sight.wait_for_state("running")
        assert "not finite" in sight.text(".hop:nth-child(2) .facts")
        assert "frozen" in sight.text(".hop:nth-child(3) .facts")
        assert legend(sight, 0).endswith("at step 19"), "an old value is not that of now"
        chart = sight.page.locator("section[aria-label=Loss] .chart")
        chart.focus()
        chart.press("End")
        assert legend(sight, 0).endswith("–")
        sight.page.get_by_role("button", name="Log", exact=True).first.click()
        sight.page.close()


def test_a_logarithm_of_nothing_is_said(tmp_path: Path, browser: Browser) -> None:
    history = made_up(tmp_path, 1, 0)
    for step in range(5):
        history.step_done(line(step, stage(1, step, loss=-2.0), time=time.time()))
    with serve(history) as server:
        sight = Sight(browser, server.url)
        sight.wait_for_state("running")
        sight.page.get_by_role("button", name="Log", exact=True).first.click()
        assert "Nothing is above 0" in sight.text("section[aria-label=Loss]")
        assert sight.console == []
        sight.page.close()


def test_steps_that_are_reported_in_one_breath_do_not_look_fast(tmp_path: Path, browser: Browser) -> None:
    history, now = made_up(tmp_path, 2, 0), time.time()
    for step, moment in enumerate((now - 10, now, now + 0.001)):  # 500 bytes each
        history.step_done({**made_up_line(step, 2), "time": moment})
    with serve(history) as server:
        sight = Sight(browser, server.url)
        sight.wait_for_state("running")
        sight.page.locator("section[aria-label=Links]").scroll_into_view_if_needed()
        sight.wait("document.querySelector('section[aria-label=Links] canvas') !== null")
        label = sight.page.locator("section[aria-label=Links] .chart").get_attribute("aria-label") or ""
        assert "stage 1 100 B/s" in label
        sight.page.close()


def test_a_part_of_the_run_can_be_seen_and_left_again(tmp_path: Path, browser: Browser) -> None:
    with serve(made_up(tmp_path, 2, 20)) as server:
        sight = Sight(browser, server.url)
        sight.wait_for_state("running")
        whole = sight.page.get_by_role("button", name="Show the whole run")
        assert not whole.is_visible()
        area = sight.page.locator("section[aria-label=Loss] .u-over").bounding_box()
        assert area is not None
        sight.page.mouse.move(area["x"] + 100, area["y"] + 50)
        sight.page.mouse.down()
        sight.page.mouse.move(area["x"] + 400, area["y"] + 50, steps=5)
        sight.page.mouse.up()
        whole.click()
        assert not whole.is_visible()
        sight.page.close()


def test_numbers_of_any_size_fit_and_ticks_differ(tmp_path: Path, browser: Browser) -> None:
    history = Told(max_rows=16)
    begin(history, tmp_path, stages=2, total_steps=10_000_000, steps_per_epoch=100_000, started=time.time() - 9e6)
    for step in range(0, 9_000_000, 100_003):
        history.step_done({**made_up_line(step, 2), "images_per_second": 123_456.7, "eta_seconds": 3.3e7})
    with serve(history) as server:
        sight = Sight(browser, server.url)
        sight.wait_for_state("running")
        wide = (
            "[...document.querySelectorAll('.figure p')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
        )
        assert sight.value(wide) == 0
        assert "each point is the mean of 1048576 steps" in sight.text("section[aria-label=Loss]").replace("\u202f", "")
        ticks = "import('/static/format.js').then((all) => [{}])"
        cases = {
            "all.tick(1.5e-4, 5e-5)": "1.5e-4", "all.tick(1e-4, 5e-5)": "1e-4", "all.tick(4.5e29, 5e28)": "4.5e29",
            "all.tick(2.30255, 5e-5)": "2.30255", "all.tick(1500000, 250000)": "1.5M", "all.tick(12500, 2500)": "12.5k",
            "all.tick(0, 10)": "0", "all.tick(40, 10)": "40", "all.tick(-0.25, 0.05)": "-0.25",
            "all.tick(0.001)": "0.001",
            "all.shareTick(0.9995, 0.0005)": "99.95 %", "all.shareTick(0.4, 0.2)": "40 %",
        }  # fmt: skip
        assert sight.value(ticks.format(", ".join(cases))) == list(cases.values())
        assert sight.console == []
        sight.page.close()
