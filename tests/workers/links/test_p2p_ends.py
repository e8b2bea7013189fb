"""The two ends of the p2p link over a socket of this process and a pair that carries nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.waiting import LIMIT
from workers.links import p2p
from workers.links.base import LinkAddress, LinkClosed, LinkMismatch, LinkTimeout
from workers.links.framed import ARRIVED, CLOSING, TAKEN
from workers.links.handshake import hello_bytes
from workers.links.messages import Header, TensorSpec
from workers.links.p2p import P2pSender
from workers.links.pair_group import RECEIVER, SENDER, Pair, PendingReceive

SPEC = TensorSpec((2, 3), torch.float32)
CPU = torch.device("cpu")


class Idle(Pair):
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.device, self.closed = CPU, False
        self.sent: list[torch.Tensor] = []
        self.waited_for: list[Any] = []

    def send(self, payload: torch.Tensor) -> list[Any]:
        self.sent.append(payload)
        return [f"work {len(self.sent)}"]

    def post_receive(self, slot: torch.Tensor) -> PendingReceive:
        raise AssertionError("this end only sends")

    def wait_sent(self, works: list[Any]) -> None:
        self.waited_for += works

    def close(self) -> None:
        self.closed = True


class Looked(Connection):
    """A connection that loses patience: a test that would ask for ever fails."""

    left = 50

    def poll(self, timeout: float | None = 0.0) -> bool:
        self.left -= 1
        assert self.left > 0, "asked again and again"
        return super().poll(timeout)


@pytest.fixture
def address(tmp_path: Path) -> LinkAddress:
    return LinkAddress(
        "link1", "stage 1", "stage 2", path="", key=b"key", depth=2, store=f"file://{tmp_path / 'store'}"
    )


@pytest.fixture
def connections() -> Iterator[tuple[Connection, Connection]]:
    """The sender's and the receiver's."""
    here, there = socket.socketpair()
    ends = Looked(here.detach()), Connection(there.detach())
    yield ends
    for end in ends:
        end.close()


def send(sender: P2pSender, steps: int) -> None:
    for step in range(steps):
        sender.send(Header(step, 0, (0.0,)), torch.full((2, 3), float(step)), LIMIT)


def test_a_close_that_nobody_confirms_is_over_in_its_time_and_says_what_may_be_lost(
    address: LinkAddress,
    connections: tuple[Connection, Connection],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(p2p, "FLUSH_SECONDS", 0.0)
    pair = Idle()
    sender = P2pSender(address, SPEC, connections[0], pair)
    send(sender, 1)
    sender.close()
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == ["link1 (stage 1 -> stage 2): messages may be lost: stage 2 did not confirm them"]
    assert pair.closed
    with pytest.raises(LinkClosed, match="cannot send message 1: this end was closed"):
        sender.await_room(0.0)


@pytest.mark.parametrize("answers", [[ARRIVED], [TAKEN, TAKEN]], ids=["arrived", "taken"])
def test_a_close_waits_until_all_has_arrived_and_says_nothing(
    answers: list[bytes],
    address: LinkAddress,
    connections: tuple[Connection, Connection],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pair, receiver = Idle(), connections[1]
    sender = P2pSender(address, SPEC, connections[0], pair)
    send(sender, 2)
    for answer in answers:
        receiver.send_bytes(answer)
    sender.close()
    sender.close()  # again: nothing
    assert pair.closed
    assert not caplog.records
    assert [len(receiver.recv_bytes()) > 1 for _ in range(2)] == [True, True]
    assert receiver.recv_bytes() == CLOSING


def test_a_tensor_is_kept_until_its_message_was_taken(
    address: LinkAddress, connections: tuple[Connection, Connection]
) -> None:
    pair, receiver = Idle(), connections[1]
    sender = P2pSender(address, SPEC, connections[0], pair)
    send(sender, 2)
    assert pair.waited_for == []
    receiver.send_bytes(TAKEN)
    sender.send(Header(2, 0, (0.0,)), torch.zeros(1, 3), LIMIT)
    assert pair.waited_for == ["work 1"]
    sizes = [payload.numel() for payload in pair.sent]
    assert sizes == [SPEC.nbytes] * 3  # the smaller one too: a slot travels whole
    receiver.send_bytes(CLOSING)
    sender.close()


@pytest.mark.parametrize(
    ("gpus", "kind"),
    [(("", ""), "gloo"), (("a", ""), "gloo"), (("", "a"), "gloo"), (("a", "a"), "gloo"), (("a", "b"), "nccl")],
)
@pytest.mark.parametrize("rank", [SENDER, RECEIVER])
def test_nccl_carries_between_two_gpus_and_gloo_whatever_else(
    gpus: tuple[str, str],
    kind: str,
    rank: int,
    address: LinkAddress,
    connections: tuple[Connection, Connection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[str, Any]] = []
    for name in ("gloo", "nccl"):
        maker = lambda store, rank, where, limit, name=name: made.append((name, (rank, where)))  # noqa: E731
        monkeypatch.setattr(p2p, f"{name.capitalize()}Pair", maker)
    hellos = [
        hello_bytes(address, SPEC, "p2p", "none", nonce=end, gpu=gpu) for end, gpu in zip("sr", gpus, strict=True)
    ]
    p2p._pair(address, connections[0], (hellos[0], hellos[1]), CPU, time.monotonic() + LIMIT, rank)
    assert made == [(kind, (rank, CPU if kind == "nccl" else p2p.LOCALHOST))]


@pytest.mark.parametrize("gone", [True, False])
def test_a_pair_that_is_not_formed_names_who_did_not_come_and_whether_it_has_ended(
    gone: bool,
    address: LinkAddress,
    connections: tuple[Connection, Connection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> Pair:
        raise ConnectionError("nobody came")

    monkeypatch.setattr(p2p, "GlooPair", fail)
    if gone:
        connections[1].close()
    hello = hello_bytes(address, SPEC, "p2p", "none", nonce="n", gpu="")
    error, words = (LinkClosed, "stage 2 ended while") if gone else (LinkTimeout, r"did not form .* \(nobody came\)")
    with pytest.raises(error, match=rf"link1 \(stage 1 -> stage 2\): .*{words}"):
        p2p._pair(address, connections[0], (hello, hello), CPU, time.monotonic() + LIMIT, SENDER)


def test_what_does_not_fit_the_link_is_refused_before_anything_travels(
    address: LinkAddress, connections: tuple[Connection, Connection]
) -> None:
    pair = Idle()
    sender = P2pSender(address, SPEC, connections[0], pair)
    with pytest.raises(LinkMismatch, match=r"a tensor \[2, 4\] float32 does not fit"):
        sender.send(Header(0, 0, (0.0,)), torch.zeros(2, 4), LIMIT)
    assert pair.sent == []
    connections[1].send_bytes(ARRIVED)
    sender.close()
