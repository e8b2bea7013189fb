"""Processes that play the replicas of a stage, shared by all tests that want them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pipeline.replicas.replica_team import Replicas


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "replicas" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.processes)


@pytest.fixture(scope="module")  # not longer: every team that was dissolved still costs its process a little
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    started = Replicas(tmp_path_factory.mktemp("replicas"))
    yield started
    started.stop()
