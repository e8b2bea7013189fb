"""A headless Chromium that notes what a page must not do: complain in the console, or ask for things from elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.waiting import LIMIT, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

INSTALL = (
    "the live page is tested in a browser: `pip install playwright` and `apt-get install chromium` (or set its path)"
)
LIMIT_MS = 1000 * LIMIT
NOTES = """
    Object.assign(window, { asked: [], heard: { beat: 0, error: 0 }, told: [] });
    const [ask, listen] = [window.fetch, EventSource.prototype.addEventListener];
    window.fetch = (...all) => {
        window.asked.push(Date.now());
        return ask(...all);
    };
    EventSource.prototype.addEventListener = function (kind, listener) {
        listen.call(this, kind, (message) => {
            listener(message);
            window.heard[kind] = (window.heard[kind] ?? 0) + 1;
        });
    };
    document.addEventListener("DOMContentLoaded", () => {
        const [state, notice] = [document.getElementById("state"), document.getElementById("notice")];
        const note = () => window.told.push([state.dataset.state, notice.innerText]);
        new MutationObserver(note).observe(notice, { attributeFilter: ["data-kind"] });
    });
"""
"""What a page does, from within: when it asked for everything, what it has heard, and what it told its reader."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium; fails where there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail(INSTALL)
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail(INSTALL)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=LIMIT_MS)
        try:
            yield browser
        finally:
            browser.close()


class Sight:
    """One open page.

    Args:
        browser: opens it.
        url: of the run.
        width: of the window, in pixels.
        scheme: `light` or `dark`, as the system would say.
    """

    def __init__(self, browser: Browser, url: str, width: int = 1280, scheme: Any = "light") -> None:
        self.console: list[str] = []
        self.requests: list[str] = []
        self.url = url
        size: Any = {"width": width, "height": 844 if width < 600 else 900}
        self.page: Page = browser.new_page(viewport=size, color_scheme=scheme)
        self.page.set_default_timeout(LIMIT_MS)
        self.page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)

    def text(self, selector: str) -> str:
        """Of the first element that fits."""
        return self.page.locator(selector).first.inner_text()

    def wait(self, expression: str) -> None:
        """Until `expression` holds; asked from here, for the page's own policy lets nobody evaluate text in it."""
        wait_until(lambda: self.value(expression), lambda: f"{expression} (the console says {self.console})")

    def take_the_clock(self, now: float | None = None) -> None:
        """Load a running run's page again, with `NOTES`, by a clock that may be turned and that says `now` at first."""
        self.page.clock.install(time=now)
        self.page.add_init_script(NOTES)
        self.page.reload()
        self.wait_for_state("running")

    def stop_the_clock(self) -> None:
        """Only turning it moves it now: the page does not notice how long this machine takes."""
        self.page.clock.pause_at(self.value("Date.now()") / 1000 + 1)

    def value(self, expression: str) -> Any:
        """Of `expression` in the page."""
        return self.page.evaluate(expression)

    def wait_for_state(self, state: str) -> None:
        """Until the badge says so: `running`, `done`, `lost`, ..."""
        self.wait(f"document.getElementById('state').dataset.state === '{state}'")

    @property
    def steps(self) -> int:
        """Steps that are done, as the page says."""
        text = self.text("[data-figure=step] .value span")
        return int(text.replace("\u202f", "")) if text.strip("–") else 0

    @property
    def foreign(self) -> list[str]:
        """Requests that went elsewhere."""
        own = urlsplit(self.url)[:2]
        return [url for url in self.requests if urlsplit(url)[:2] != own and not url.startswith("data:")]

    @property
    def too_wide(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.value("document.documentElement.scrollWidth - window.innerWidth"))
