"""A link can be opened again under the same address after a process died, and a process that has one can always end."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import TCPStore

from tests.marks import slow
from tests.waiting import LIMIT, wait_until
from tests.workers.links.link_team import Peer
from tests.workers.links.processes import state_of

# Five processes start, which takes minutes on a very busy machine.
pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]
WAYS = ("queue", "ring", "p2p", "p2p over TCP")


@contextlib.contextmanager
def peers(*names: str, **settings: Any) -> Iterator[list[Peer]]:
    with contextlib.ExitStack() as stack:
        found = []
        for name in names:
            found.append(Peer(name, **settings))
            stack.callback(found[-1].kill)
        for peer in found:
            peer.await_ready()
        yield found


@pytest.fixture
def store() -> TCPStore:
    """Somebody else's: the two ends of a link are clients of it."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def address_of(way: str, folder: Path, store: TCPStore) -> dict[str, Any]:
    common = {"name": "link1", "sender": "stage 1", "receiver": "stage 2", "depth": 2}
    if way == "p2p over TCP":
        return {**common, "path": "", "store": f"tcp://127.0.0.1:{store.port}", "host": "127.0.0.1"}
    return {**common, "path": str(folder / "link1"), "store": f"file://{folder}/store"}


def open_both(
    way: str, address: dict[str, Any], sender: Peer, receiver: Peer, shape: tuple[int, ...] = (4, 3, 2)
) -> None:
    common = {"kind": way.split()[0], "address": address, "shape": shape, "dtype": "float32"}
    receiver.begin("open", end="receiver", **common)
    sender.begin("open", end="sender", **common)
    sender.end()
    receiver.end()


def pass_messages(sender: Peer, receiver: Peer, count: int = 7) -> None:
    for step in range(count):
        sent = sender.call("send", link="link1", step=step, shape=[4, 3, 2])
        assert receiver.call("recv", link="link1") == sent


@pytest.mark.parametrize("way", WAYS)
def test_a_link_is_opened_again_after_either_process_died(way: str, tmp_path: Path, store: TCPStore) -> None:
    address = address_of(way, tmp_path, store)
    with peers("a sender", "another", "a receiver", "a second", "a third") as (first, other, *receivers):
        open_both(way, address, first, receivers[0])
        pass_messages(first, receivers[0])
        for _ in range(2):  # full, so that nothing fits
            first.call("send", link="link1", step=0, shape=[4, 3, 2])
        receivers[0].kill()
        first.begin("send", link="link1", step=1, shape=[4, 3, 2])
        error, message = first.failure()
        assert error == "LinkClosed"
        assert "stage 2 ended without closing the link" in message
        first.call("close", link="link1")

        open_both(way, address, first, receivers[1])  # the same sender, another receiver
        pass_messages(first, receivers[1])
        if way == "ring":
            assert first.call("way", link="link1") == ["stage 1 -> stage 2: queue, device to device (CUDA IPC)"]
        receivers[1].begin_blocked("recv", link="link1")
        first.kill()
        assert receivers[1].failure()[0] == "LinkClosed"
        receivers[1].call("close", link="link1")

        open_both(way, address, other, receivers[1])  # the other way round
        pass_messages(other, receivers[1])
        other.call("close", link="link1")
        receivers[1].call("close", link="link1")
        open_both(way, address, other, receivers[2])  # nobody died
        pass_messages(other, receivers[2])
        for peer in (other, receivers[2]):
            peer.call("close", link="link1")


def test_a_sender_is_not_misled_by_the_port_of_a_receiver_that_died_while_it_waited(
    tmp_path: Path, store: TCPStore
) -> None:
    address = address_of("p2p over TCP", tmp_path, store)
    common = {"kind": "p2p", "address": address, "shape": [4, 3, 2], "dtype": "float32"}
    with peers("sender", "a receiver", "another") as (sender, dead, receiver):
        dead.begin("open", end="receiver", **common)
        wait_until(lambda: store.check(["onward/link1/where"]), "its port")
        dead.kill()
        assert store.check(["onward/link1/where"])
        with socket.create_server(("127.0.0.1", 0)) as tried:  # this test takes the place of the dead
            store.set("onward/link1/where", f"127.0.0.1 {tried.getsockname()[1]}")
            sender.begin("open", end="sender", **common)
            tried.settimeout(LIMIT)
            tried.accept()[0].close()
        receiver.begin("open", end="receiver", **common)
        sender.end()
        receiver.end()
        pass_messages(sender, receiver)
        assert not store.check(["onward/link1/where"])


def send_half(sender: Peer, receiver: Peer, elements: int) -> None:
    """While the receiver is frozen no more leaves than its system takes; then the sender is, for good."""
    receiver.process.send_signal(signal.SIGSTOP)
    sender.begin("send_and_stop", link="link1", elements=elements)
    wait_until(lambda: state_of(sender.process.pid) == "T", "the sender frozen")
    receiver.process.send_signal(signal.SIGCONT)


def test_a_p2p_receiver_is_not_bound_to_a_message_that_is_half_there(tmp_path: Path, store: TCPStore) -> None:
    address, elements = {**address_of("p2p", tmp_path, store), "depth": 1}, 25_000_000
    with peers("sender", "receiver") as (sender, receiver):
        open_both("p2p", address, sender, receiver, (elements,))
        send_half(sender, receiver, elements)
        receiver.begin("recv", link="link1", timeout=0.5)
        assert receiver.failure()[0] == "LinkTimeout"
        sender.process.send_signal(signal.SIGCONT)
        assert receiver.call("recv", link="link1")["shape"] == [elements]  # a timeout leaves the link as it was
        sender.end()

        send_half(sender, receiver, elements)
        receiver.begin("recv", link="link1", timeout=0.2)
        assert receiver.failure()[0] == "LinkTimeout"
        assert receiver.call("close", link="link1") == []
        sender.process.send_signal(signal.SIGCONT)
        sender.end()
        sender.begin("send", link="link1", step=1, shape=[2])
        error, message = sender.failure()
        assert error == "LinkClosed"
        assert "stage 2 closed its end" in message
        sender.call("close", link="link1")

        open_both("p2p", address, sender, receiver, (elements,))
        send_half(sender, receiver, elements)
        receiver.begin_blocked("recv", link="link1")
        sender.kill()
        error, message = receiver.failure()
        assert error == "LinkClosed"
        assert "stage 1 ended without closing the link" in message


@pytest.mark.parametrize("closed", [slow("both closed"), "none closed"])
def test_processes_with_outstanding_receives_end_quietly(tmp_path: Path, store: TCPStore, closed: str) -> None:
    address = address_of("p2p", tmp_path, store)
    with peers("sender", "receiver", stderr=subprocess.PIPE) as (sender, receiver):
        open_both("p2p", address, sender, receiver)
        pass_messages(sender, receiver, count=3)
        for step in range(2):
            sender.call("send", link="link1", step=step, shape=[4, 3, 2])
        for peer in (receiver, sender):
            if closed == "both closed":
                peer.call("close", link="link1")
        for peer in (receiver, sender):
            _, errors = peer.process.communicate(timeout=LIMIT)
            assert peer.process.returncode == 0, errors
            assert errors == ""


def test_a_p2p_link_without_a_store_says_what_is_missing(tmp_path: Path, store: TCPStore) -> None:
    address = {**address_of("p2p over TCP", tmp_path, store), "store": "nowhere"}
    with peers("receiver") as (receiver,):
        receiver.begin("open", end="receiver", kind="p2p", address=address, shape=[4], dtype="float32")
        error, message = receiver.failure()
    assert error == "UserError"
    assert "'nowhere' names none" in message
    assert "file:///PATH" in message


def test_a_queue_between_hosts_is_refused(tmp_path: Path, store: TCPStore) -> None:
    address = address_of("p2p over TCP", tmp_path, store)
    with peers("receiver") as (receiver,):
        receiver.begin("open", end="receiver", kind="queue", address=address, shape=[4], dtype="float32")
        error, message = receiver.failure()
    assert error == "UserError"
    assert "link.kind=p2p or rpc" in message
