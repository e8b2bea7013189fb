"""A real Prometheus for tests: started with the configuration of deploy/prometheus, asked over HTTP, always ended."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.parts import PROMETHEUS
from tests.waiting import LIMIT, wait_until

INSTALL = "apt-get install --no-install-recommends prometheus (2.42 or later; it brings promtool)"


def tool(name: str) -> str:
    """The path of `prometheus` or `promtool`; the test fails where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed: {INSTALL}")
    return found


@dataclass(frozen=True)
class Server:
    """One Prometheus that is running."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer; raises `AssertionError` with the reason if it is no success."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=LIMIT) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {json.load(error)['error']}") from None

    def query(self, expression: str, when: float | None = None) -> list[dict[str, Any]]:
        """The series that an expression has now, or at `when`, in seconds since 1970."""
        at = {} if when is None else {"time": str(when)}
        result: list[dict[str, Any]] = self.get("query", query=expression, **at)["result"]
        return result

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series that an expression has from `start` to `end`, in seconds since 1970, every `step` seconds."""
        times = {"start": str(start), "end": str(end), "step": str(step)}
        result: list[dict[str, Any]] = self.get("query_range", query=expression, **times)["result"]
        return result


@contextmanager
def prometheus(folder: Path) -> Iterator[Server]:
    """Serve what `folder/targets/*.json` names by our configuration and rules, with a scrape every second."""
    config = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    quick, changed = re.subn(r"(scrape_interval|evaluation_interval|refresh_interval): \S+", r"\1: 1s", config)
    assert changed == 3
    (folder / "prometheus.yml").write_text(quick, encoding="utf-8")
    shutil.copy(PROMETHEUS / "rules.yml", folder)
    (folder / "targets").mkdir()
    command = [
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    log = folder / "prometheus.log"
    with log.open("w") as errors:
        process = subprocess.Popen(command, cwd=folder, stdout=errors, stderr=errors)
    try:
        yield Server(f"http://{_address(process, log)}")
    finally:
        process.terminate()
        try:
            process.wait(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=LIMIT)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, from its log, once it is ready."""

    def listening() -> str:
        text = log.read_text()
        assert process.poll() is None, f"Prometheus did not start: {text[-2000:]}"
        found = re.search(r'msg="Listening on" address=(\S+)', text)
        return found[1] if found and "Server is ready" in text else ""

    return wait_until(listening, lambda: f"Prometheus, which says {log.read_text()[-2000:]}")
