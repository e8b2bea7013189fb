"""The live page in a real browser: on a real run from its first steps to after its end, and on runs made up here."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from pipeline.config import MetricsConfig
from tests.observing.browser import Sight
from tests.observing.test_history import Told, event, line, stage
from tests.recovery import faults, pause
from tests.runs import LIMIT, start, wait_for_steps
from tests.waiting import wait_until
from workers.observing.live import History, LiveServer
from workers.observing.observer import RunFacts

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * LIMIT)]
STEPS = 40
ONLINE = ("evaluation.online.linear=true", "evaluation.online.quality_every=5", "evaluation.online.quality_samples=64")
EVIL = "<img src=x onerror=alert(1)>"


@pytest.mark.processes
def test_a_run_is_seen_from_its_first_steps_to_after_its_end(tmp_path: Path, browser: Browser) -> None:
    held = faults(pause(tmp_path / "go", 1, 3))
    process = start(tmp_path, f"train.max_steps={STEPS}", f"hang_timeout={LIMIT}", held, *ONLINE)
    try:
        wait_for_steps(tmp_path, 3, process)
        url = json.loads((tmp_path / "run" / "coordinator.json").read_text())["page"]
        wide, phone = Sight(browser, url), Sight(browser, url, width=390, scheme="dark")
        for sight in (wide, phone):
            sight.wait_for_state("running")
            assert sight.too_wide <= 0
        a_reload_keeps_the_history(wide)
        phone.take_the_clock()
        before = wide.steps
        (tmp_path / "go").touch()
        wide.wait(f"Number(document.querySelector('[data-figure=step] .value span').textContent) > {before + 2}")
        assert url in process.communicate(timeout=LIMIT)[0]
        assert process.returncode == 0
    finally:
        process.kill()
    for sight in (wide, phone):
        sight.wait_for_state("done")
        assert sight.steps == STEPS
        assert "has ended" in sight.text("#freshness")
        shows_everything(sight)
    assert background(wide) != background(phone)
    phone.page.clock.fast_forward(600_000)
    phone.page.wait_for_timeout(500)  # nobody asks the server that is gone
    assert phone.value("window.asked.length") == 1
    for sight in (wide, phone):
        assert sight.text("#state-text") == "Done"
        assert sight.console == []
        assert sight.foreign == []
        assert sight.too_wide <= 0
        sight.page.close()


def a_reload_keeps_the_history(sight: Sight) -> None:
    sight.wait("document.querySelector('[data-figure=step] .value span').textContent === '3'")
    sight.page.reload()
    sight.wait_for_state("running")
    assert sight.steps == 3
    axis = sight.value("fetch('/history.json').then((answer) => answer.json()).then((all) => all.steps)")
    assert axis == [0, 1, 2]


def shows_everything(sight: Sight) -> None:
    boxes = sight.page.locator(".hop .box-title span:first-child").all_inner_texts()
    assert boxes == ["Images", *(f"Stage {k}" for k in range(1, 5))]
    moods = sight.page.locator(".hop .mood").all_inner_texts()
    assert all("%" in mood for mood in moods[1:]), moods
    for title in ("Loss", "Online probe accuracy", "Effective rank", "Collapse level", "Memory", "Norms"):
        panel = f"section[aria-label='{title}']"
        sight.page.locator(panel).scroll_into_view_if_needed()
        sight.wait(f'document.querySelector("{panel} canvas") !== null')
        assert len(sight.page.locator(f"{panel} .legend li").all()) == 4
        assert "–" not in sight.text(f"{panel} .legend"), title
    assert "fashion_mnist_10k" in sight.text("#config")


def background(sight: Sight) -> str:
    return str(sight.value("getComputedStyle(document.body).backgroundColor"))


def begin(
    history: History,
    path: Path,
    *,
    stages: int,
    total_steps: int,
    started: float,
    steps_per_epoch: int = 10,
    name: str = "x",
    config: dict[str, Any] | None = None,
) -> None:
    """Tell the history of a run that has begun; `started` in seconds since 1970."""
    history.run_started(
        RunFacts(
            name=name,
            path=path,
            config=config or {},
            stages=stages,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            start_step=0,
            started=started,
        )
    )


def made_up(path: Path, stages: int, steps: int, **config: Any) -> History:
    history = Told()
    settings = {"link": {"kind": "queue", "depth": 2}, "data": {"name": EVIL, "batch_size": 64}, **config}
    begin(history, path, stages=stages, total_steps=1000, started=time.time() - 300, name=EVIL, config=settings)
    for step in range(steps):
        history.step_done(made_up_line(step, stages))
    return history


def made_up_line(step: int, stages: int) -> dict[str, Any]:
    terms = {EVIL: 2.0, "on_diagonal": 1.0}
    found = (stage(k, step, terms=terms, loss=5.0 / (step + k)) for k in range(1, stages + 1))
    return line(step, *found, time=time.time())


def serve(history: History, **settings: Any) -> LiveServer:
    return LiveServer(MetricsConfig(**settings), CollectorRegistry(), history)


def test_what_users_write_is_text_and_nothing_else(tmp_path: Path, browser: Browser) -> None:
    history = made_up(tmp_path, 3, 20)
    history.event(event("alarm", EVIL, 2))
    with serve(history) as server:
        sight = Sight(browser, server.url)
        sight.wait_for_state("running")
        assert sight.text("#run-name") == EVIL
        assert sight.text("#alarms strong") == f"Stage 2: {EVIL}"
        assert EVIL in sight.text("#events")
        assert sight.text(".hop:nth-child(3) .troubles") == f"Alarm: {EVIL}"
        assert sight.page.locator("section[aria-label=Loss] .segments button", has_text=EVIL).count() == 1
        assert sight.page.locator("img").count() == 1, "the mark alone"
        assert sight.console == []
        sight.page.close()


@pytest.mark.parametrize("stages", [1, 16])
@pytest.mark.parametrize("width", [390, 1280])
def test_any_number_of_stages_fits(tmp_path: Path, browser: Browser, stages: int, width: int) -> None:
    history = made_up(tmp_path, stages, 50)
    history.event(event("alarm"))
    with serve(history) as server:
        sight = Sight(browser, server.url, width)
        sight.wait_for_state("running")
        assert sight.page.locator(".hop").count() == stages + 1
        assert sight.too_wide <= 0
        assert sight.value(
            "[...document.querySelectorAll('.box')].every((box) => box.scrollWidth <= box.clientWidth + 1)"
        ), "text runs out of its box"
        assert "evaluation.online.linear=true" in sight.text("section[aria-label='Online probe accuracy']")
        assert sight.console == []
        sight.page.close()


def test_a_run_that_vanishes_is_said_to_be_out_of_reach_quietly(tmp_path: Path, browser: Browser) -> None:
    history = made_up(tmp_path, 2, 20)
    server = serve(history)
    place, port = server._server.socket.dup(), server._server.server_port
    try:
        sight = Sight(browser, server.url)
        sight.take_the_clock()
    finally:
        server.close()
        place.shutdown(socket.SHUT_RDWR)  # it listens no more, and nobody else can take it
    sight.wait_for_state("lost")
    assert sight.steps == 20
    wait_until(lambda: sight.page.clock.run_for(1_000) or sight.value("window.asked.length > 3"), "a third try")
    assert len(sight.console) <= sight.value("window.asked.length"), "one line a try"
    _, first, second, third, *_ = sight.value("window.asked")
    assert second - first >= 3_000, "and the tries become rare"
    assert third - second >= 10_000
    again = made_up(tmp_path, 2, 30)
    with place, serve(again, port=port):
        sight.page.get_by_role("button", name="Try again").click()
        sight.wait_for_state("running")
        assert sight.steps == 30
        again.step_done(made_up_line(30, 2))
        sight.wait("document.querySelector('[data-figure=step] .value span').textContent === '31'")
        again.run_ended("failed: stage 2 died")
        sight.wait_for_state("failed")
    sight.page.close()


def test_curves_that_become_coarser_go_on(tmp_path: Path, browser: Browser) -> None:
    history = Told(max_rows=16)
    begin(history, tmp_path, stages=1, total_steps=1000, steps_per_epoch=10, started=time.time())
    with serve(history) as server:
        sight = Sight(browser, server.url)
        for step in range(200):
            history.step_done(made_up_line(step, 1))
            if step % 25 == 24:
                sight.wait(f"document.querySelector('[data-figure=step] .value span').textContent === '{step + 1}'")
        assert sight.console == []
        sight.page.close()


def test_the_theme_is_kept_and_charts_answer_the_keyboard(tmp_path: Path, browser: Browser) -> None:
    with serve(made_up(tmp_path, 2, 20)) as server:
        sight = Sight(browser, server.url)
        sight.wait_for_state("running")
        light = background(sight)
        sight.page.get_by_role("button", name="Dark").click()
        assert background(sight) != light
        sight.page.reload()
        sight.wait_for_state("running")
        assert background(sight) != light
        loss = sight.page.locator("section[aria-label=Loss] .chart")
        loss.focus()
        before = sight.text("section[aria-label=Loss] .legend")
        for _ in range(5):
            loss.press("ArrowLeft")
        assert sight.text("section[aria-label=Loss] .at") == "step 14"
        assert sight.text("section[aria-label=Loss] .legend") != before
        assert (loss.get_attribute("aria-label") or "").startswith("Loss, total at step 19: stage 1 0.250")
        sight.page.get_by_label("Find").fill("batch_size")
        assert sight.text("#config").split() == ["data", "batch_size", "64"]
        assert sight.console == []
        sight.page.close()


@pytest.mark.parametrize("width", [1100, 1280])
def test_the_shares_of_a_stage_stand_on_one_line_and_its_speed_has_a_unit_that_fits(
    tmp_path: Path, browser: Browser, width: int
) -> None:
    history = made_up(tmp_path, 4, 0)
    for step in range(20):
        spent = {"busy": 0.5 * step, "wait_input": 0.2 * step, "wait_output": 0.2 * step, "copying": 0.1 * step}
        speeds = (0.017e12, 312e12, 5e6, 0.0)
        stages = (stage(k, step, **spent, flops=step * speed) for k, speed in enumerate(speeds, 1))
        history.step_done(line(step, *stages, time=time.time() - 20 + step))
    with serve(history) as server:
        sight = Sight(browser, server.url, width)
        sight.wait_for_state("running")
        sight.wait("document.querySelectorAll('.parts .copy').length === 4")
        boxes = "[...document.querySelectorAll('.parts')].map((parts) => [...parts.children].map((c) => c.offsetTop))"
        assert [len(set(tops)) for tops in sight.value(boxes)] == [1] * 5
        facts = [sight.page.locator(".box").nth(k).locator(".facts").inner_text() for k in range(1, 5)]
        shown = [re.findall(r"speed\s+(.+)", text) for text in facts]
        assert shown == [["17.0 GFLOP/s"], ["312 TFLOP/s"], ["5.00 MFLOP/s"], []]
        sight.page.close()
