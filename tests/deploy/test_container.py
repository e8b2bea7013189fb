"""The container: its file is clean, it holds what it installs, and what stops it leaves time for a snapshot."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from compose_spec import PyCompose

from pipeline.config import Config
from tests.runs import LIMIT, ROOT

DOCKER = ROOT / "deploy" / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.processes
def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_installed_is_in_the_context() -> None:
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.M)
    packages = [name.removesuffix("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
    needed = [*packages, "configs", "pyproject.toml", PROJECT["project"]["readme"]]
    needed += re.findall(r"^COPY (deploy/\S+|pyproject\.toml)", (DOCKER / "Dockerfile").read_text(), re.M)
    assert [each for each in needed if each not in kept] == []
    assert [each for each in kept if not (ROOT / each).exists()] == []


@pytest.mark.processes
def test_the_dependencies_are_those_of_the_project() -> None:
    command = [sys.executable, str(DOCKER / "dependencies.py"), str(ROOT / "pyproject.toml"), "jpeg"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    project = PROJECT["project"]
    assert done.stdout.splitlines() == [*project["dependencies"], *project["optional-dependencies"]["jpeg"]]


def test_compose_is_valid_to_the_letter() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    PyCompose.from_yaml(text).validate()
    with pytest.raises(ValueError, match="stop_grace_time"):
        PyCompose.from_yaml(text.replace("stop_grace_period", "stop_grace_time"))


def test_compose_gives_a_run_time_for_its_snapshot_and_prometheus_finds_it() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    leave = Config.model_fields["snapshots"].get_default(call_default_factory=True).leave_seconds
    assert int(services["train"]["stop_grace_period"].removesuffix("s")) > leave
    port = next(word.partition("=")[2] for word in services["train"]["command"] if word.startswith("metrics.port="))
    read = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
    assert [(each["job_name"], each["static_configs"][0]["targets"]) for each in read] == [
        ("onward", [f"train:{port}"])
    ]
    assert f"ONWARD_PORT={port}" in (DOCKER / "Dockerfile").read_text()
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source == "runs" or (DOCKER / source).exists(), source


class Page(BaseHTTPRequestHandler):
    """A run that answers."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.mark.processes
def test_a_run_is_well_while_it_answers() -> None:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = server.server_address[1]
        assert health(port) == 0
        server.shutdown()
        thread.join(LIMIT)
    assert health(port) == 1


def health(port: int) -> int:
    command = [sys.executable, str(DOCKER / "health.py")]
    return subprocess.run(command, env={"ONWARD_PORT": str(port)}, timeout=LIMIT).returncode
