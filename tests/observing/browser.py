"""A headless Chromium that notes what a page must not do: complain in the console, or ask for things from elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

INSTALL = (
    "the live page is tested in a browser: `pip install playwright` and `apt-get install chromium` (or set its path)"
)
LIMIT_MS = 60_000


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
        deadline = time.monotonic() + LIMIT_MS / 1000
        while not self.value(expression):
            assert time.monotonic() < deadline, f"never: {expression}; the console says {self.console}"
            self.page.wait_for_timeout(50)

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
