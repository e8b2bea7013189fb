"""How a rank waits for the first host: where pods start when there is room for them, its name may come late."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from workers.topology import joining
from workers.topology.torchrun import RanksApart

RANK = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "onward-0.onward"}


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the first host resolves at the fourth time that it is looked up; behind it is this host."""
    asked: list[str] = []
    connect = socket.create_connection

    def create_connection(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address[0])
        if len(asked) < 4:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return connect(("127.0.0.1", address[1]), timeout)

    monkeypatch.setattr("workers.topology.network.socket.create_connection", create_connection)
    monkeypatch.setattr(joining, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(joining, "rendezvous", lambda *_, **__: iter([("a store", 1, 2)]))
    for name in joining.KNOWS_HOSTS:
        monkeypatch.delenv(name, raising=False)


def join(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        for name, value in {**RANK, "MASTER_PORT": str(server.getsockname()[1]), **environment}.items():
            monkeypatch.setenv(name, value)
        return joining.join_group(60.0)


def test_a_pod_waits_for_the_name_of_the_first(late: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert join(monkeypatch).own_address == "127.0.0.1"


@pytest.mark.parametrize("name", joining.KNOWS_HOSTS)
def test_on_hosts_that_are_there_a_wrong_name_is_soon_told(
    late: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with pytest.raises(RanksApart, match=r"'onward-0\.onward': the name does not resolve"):
        join(monkeypatch, **{name: "1"})
