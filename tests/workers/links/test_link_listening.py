"""Ports that libraries leave open: closed to newcomers, while those that are connected go on."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.waiting import LIMIT
from workers.links import listening, wire
from workers.links.listening import closed_afterwards, listening_sockets
from workers.links.pair_group import RECEIVER, SENDER, GlooPair
from workers.topology.replica_group import join_replica_group, leave_replica_group

SILENCE = 0.2
"""Seconds without an answer, where the kernel is to drop an attempt; one that it does not drop, it answers itself."""


def admits(descriptor: int, within: float = SILENCE) -> bool:
    """Whether a stranger can connect to a listening socket of this process."""
    with socket.socket(fileno=os.dup(descriptor)) as listener, socket.socket(listener.family) as stranger:
        stranger.settimeout(within)
        try:
            stranger.connect(listener.getsockname())
        except TimeoutError:
            return False
        return True


class Opened:
    """On which descriptors this process listens since the test began."""

    def __init__(self) -> None:
        self._before = listening_sockets().keys()

    def ports(self) -> list[int]:
        return [number for inode, number in listening_sockets().items() if inode not in self._before]


@pytest.fixture
def opened() -> Opened:
    return Opened()


@pytest.fixture(autouse=True, params=["as the kernel allows", "without filters"])
def filters(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some kernels let only root attach a filter; without one, a port is closed in another way."""
    if request.param == "without filters":
        monkeypatch.setattr(listening, "_ATTACH_FILTER", -1)


def test_a_port_that_was_opened_inside_admits_nobody_afterwards() -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        with closed_afterwards():
            inside = socket.create_server(("127.0.0.1", 0))
            friend = socket.create_connection(inside.getsockname(), timeout=LIMIT)
        with inside, friend:
            assert not admits(inside.fileno())
            assert admits(before.fileno(), LIMIT)
            known, _ = inside.accept()
            with known:
                known.settimeout(LIMIT)
                friend.sendall(b"still here")
                assert known.recv(10) == b"still here"
                known.sendall(b"so am I")
                assert friend.recv(7) == b"so am I"


def pair_of(store: dist.Store) -> tuple[GlooPair, GlooPair]:
    made: dict[int, GlooPair] = {}

    def make(rank: int) -> None:
        made[rank] = GlooPair(store, rank, "127.0.0.1", LIMIT)

    other = threading.Thread(target=make, args=(RECEIVER,))
    other.start()
    make(SENDER)
    other.join()
    return made[SENDER], made[RECEIVER]


def test_strangers_cannot_use_up_the_open_files_of_a_process_by_the_port_of_its_pair(opened: Opened) -> None:
    sender, receiver = pair_of(dist.HashStore())
    try:
        ports = opened.ports()
        assert len(ports) == 2  # one of each end
        assert not any(admits(port) for port in ports)
        slot, payload = torch.zeros(8, dtype=torch.uint8), torch.arange(8, dtype=torch.uint8)
        arrival = receiver.post_receive(slot)
        sender.wait_sent(sender.send(payload))
        arrival.wait(lambda: True)
        assert slot.tolist() == payload.tolist()
    finally:
        sender.close()
        receiver.close()


def test_nor_by_that_of_replicas(opened: Opened, tmp_path: Path) -> None:
    team = join_replica_group(
        f"file://{tmp_path / 'store'}", "stage 1", 0, 1, torch.device("cpu"), LIMIT, always_group=True
    )
    try:
        ports = opened.ports()
        assert ports
        assert not any(admits(port) for port in ports)
        team.start_sum(torch.ones(3)).wait()
    finally:
        leave_replica_group()


def test_a_group_that_forms_does_not_close_the_port_of_one_that_is_still_forming() -> None:
    with closed_afterwards(), socket.create_server(("127.0.0.1", 0)) as slow:
        with closed_afterwards():
            quick = socket.create_server(("127.0.0.1", 0))
        with quick:
            assert admits(slow.fileno(), LIMIT)


def test_all_are_closed_when_the_last_has_formed() -> None:
    with closed_afterwards():
        with closed_afterwards():
            quick = socket.create_server(("127.0.0.1", 0))
        slow = socket.create_server(("127.0.0.1", 0))
    with quick, slow:
        assert not admits(quick.fileno())
        assert not admits(slow.fileno())


def test_a_port_of_our_own_stays_open_whatever_forms_meanwhile() -> None:
    with closed_afterwards():
        own = wire.listen(("127.0.0.1", 0))
    with own:
        assert admits(own.fileno(), LIMIT)
