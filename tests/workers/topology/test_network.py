"""By which address others reach this host: the order of what is tried, and who it is that answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from pipeline.config.network import NetworkConfig
from pipeline.errors import ConfigError
from workers.topology import network
from workers.topology.network import ProbeListener, candidates, reach, reach_each, wait_for_port

INTERFACES = {"lo": ["127.0.0.1"], "eth0": ["10.77.0.1", "fd77::1"], "ib0": ["10.78.0.1"], "idle": []}


@pytest.fixture(autouse=True)
def _interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {socket.AF_INET: "10.78.0.1", socket.AF_INET6: None}
    monkeypatch.setattr(network, "addresses_by_interface", lambda: INTERFACES)
    monkeypatch.setattr(network, "_way_to", lambda target, family: ways[family])


@pytest.mark.parametrize(
    ("said", "towards", "expected"),
    [
        ({}, "10.77.0.1", ["10.77.0.1", "10.78.0.1", "fd77::1"]),
        ({}, "127.0.1.1", ["127.0.1.1", "10.78.0.1", "10.77.0.1", "fd77::1"]),
        ({}, None, ["10.78.0.1", "10.77.0.1", "fd77::1"]),
        ({"address": "fd77::1"}, "10.78.0.1", ["fd77::1"]),
        ({"interface": "eth0"}, "10.78.0.1", ["10.77.0.1", "fd77::1"]),
    ],
    ids=["the way to the first host first", "loopback only if that is it", "default route", "address", "interface"],
)
def test_what_is_announced(said: dict[str, str], towards: str | None, expected: list[str]) -> None:
    assert candidates(NetworkConfig(**said), towards) == expected


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"address": "10.9.9.9"}, r"^network\.address: '10\.9\.9\.9' is no address of .*10\.77\.0\.1, fd77::1, 10\.78"),
        ({"interface": "eth7"}, r"^network\.interface: 'eth7' is no interface of .* It has lo, eth0, ib0$"),
        ({"interface": "idle"}, r"^network\.interface: 'idle' is no interface of"),
    ],
)
def test_what_this_host_does_not_have_is_refused(said: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        candidates(NetworkConfig(**said), None)


def test_gloo_and_tensorpipe_take_the_interface_unless_they_were_told_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine")
    monkeypatch.delenv("TP_SOCKET_IFNAME", raising=False)
    network.use_interface_of("fd77::1")
    assert [network.os.environ[name] for name in network.INTERFACE_VARIABLES] == ["mine", "eth0"]
    monkeypatch.delenv("TP_SOCKET_IFNAME")
    network.use_interface_of("127.0.1.1")
    assert network.os.environ["TP_SOCKET_IFNAME"] == "lo"


@pytest.fixture
def probes() -> Iterator[ProbeListener]:
    with ProbeListener([]) as listener:
        yield listener


def test_an_address_is_reached_where_the_right_process_answers(probes: ProbeListener) -> None:
    """The address of another host may be one of this host, too: then somebody else answers, or nobody."""
    with ProbeListener(["127.0.0.1"]) as other:
        targets = [
            ("127.0.0.1", probes.port, probes.token),
            ("127.0.0.1", other.port, probes.token),
            ("127.0.0.1", other.port, other.token),
        ]
        found = reach_each(targets)
    assert found[targets[0]] == found[targets[2]] == "127.0.0.1"
    assert isinstance(found[targets[1]], ConnectionError)
    with pytest.raises(ConnectionRefusedError):
        reach("127.0.0.1", other.port, other.token)


def test_a_program_that_says_nothing_is_not_waited_for_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        reach("127.0.0.1", silent.getsockname()[1], "token", timeout=0.2)


def test_a_port_that_is_opened_later_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        wait_for_port("127.0.0.1", port, 0.0, 60.0)
    opened: list[socket.socket] = []
    later = threading.Timer(0.3, lambda: opened.append(socket.create_server(("127.0.0.1", port))))
    later.start()
    try:
        assert wait_for_port("127.0.0.1", port, 60.0, 0.0) == "127.0.0.1"
    finally:
        later.join()
        for listener in opened:
            listener.close()
