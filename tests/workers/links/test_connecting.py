"""The two ends of a link before the first message: who talks nonsense, falls silent, or leaves is named."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.errors import TrainingError, UserError
from tests.waiting import LIMIT
from workers.links import connecting as opening
from workers.links import queue as queue_link
from workers.links import wire
from workers.links.base import LinkAddress, LinkClosed, LinkMismatch, LinkTimeout
from workers.links.connecting import exchange_hellos
from workers.links.factory import CPU, open_receiver
from workers.links.framed import _unframe
from workers.links.handshake import compare_hellos, hello_bytes, parse_hello
from workers.links.memory import SEALS, SlotMemory, memory_file
from workers.links.messages import TensorSpec

ADDRESS = LinkAddress("link2", "stage 1", "stage 2", path="/nowhere", key=b"key", depth=2)
SPEC = TensorSpec((4, 3), torch.float32)
HELLO = hello_bytes(ADDRESS, SPEC, "queue", "none")


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection]]:
    """Both ends of a connection; closing one twice does nothing."""
    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    yield ours, theirs
    for end in (ours, theirs):
        if not end.closed:
            end.close()


@pytest.mark.parametrize("nonsense", [b"{", b"[1]", b"[" * 100_000, b"\xff", b""])
def test_an_end_that_does_not_introduce_itself_is_refused(nonsense: bytes) -> None:
    with pytest.raises(LinkMismatch, match="did not introduce itself"):
        parse_hello(ADDRESS, nonsense)


@pytest.mark.parametrize("key", ["link", "kind", "codec", "spec", "depth"])
def test_what_both_must_state_alike_is_compared(key: str) -> None:
    other = json.dumps({**json.loads(HELLO), key: "another"}).encode()
    compare_hellos(ADDRESS, HELLO, HELLO)
    with pytest.raises(LinkMismatch, match=r"another by stage 1, .* by stage 2"):
        compare_hellos(ADDRESS, other, HELLO)


def test_an_end_that_falls_silent_is_named(ends: tuple[Connection, Connection]) -> None:
    with pytest.raises(LinkTimeout, match="stage 1 connected and then fell silent"):
        exchange_hellos(ends[0], ADDRESS, HELLO, time.monotonic(), sending=False)


def test_an_end_that_leaves_is_named(ends: tuple[Connection, Connection]) -> None:
    ends[1].close()
    with pytest.raises(LinkClosed, match="stage 2 ended while the link was being opened"):
        exchange_hellos(ends[0], ADDRESS, HELLO, time.monotonic() + 60.0, sending=True)


def test_memory_that_does_not_come_is_waited_for_no_longer_than_asked(ends: tuple[Connection, Connection]) -> None:
    with pytest.raises(LinkTimeout, match="stage 1 handed over no memory in time"):
        queue_link._receive_descriptor(ends[0], ADDRESS, SPEC, time.monotonic())
    ends[1].close()
    with pytest.raises(LinkClosed, match="stage 1 ended while"):
        queue_link._receive_descriptor(ends[0], ADDRESS, SPEC, time.monotonic() + 60.0)


def test_too_little_memory_is_refused(ends: tuple[Connection, Connection]) -> None:
    large = TensorSpec((1024, 1024), torch.float32)
    for given, wanted in ((SPEC, SPEC), (SPEC, large)):
        with memory_file(given, 2, "link") as descriptor, socket.socket(fileno=os.dup(ends[1].fileno())) as sock:
            socket.send_fds(sock, [b"!"], [descriptor])
        if wanted is SPEC:
            os.close(queue_link._receive_descriptor(ends[0], ADDRESS, wanted, time.monotonic() + 60.0))
            continue
        with pytest.raises(LinkMismatch, match="handed over less memory than"):
            queue_link._receive_descriptor(ends[0], ADDRESS, wanted, time.monotonic() + 60.0)


@pytest.mark.skipif(not SEALS, reason="this system has no sealed memory")
def test_memory_that_could_be_taken_away_again_is_refused(ends: tuple[Connection, Connection], tmp_path: Path) -> None:
    size = SlotMemory.size(SPEC, 2)
    unsealed = os.memfd_create("stranger", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    plain = os.open(tmp_path / "plain", os.O_RDWR | os.O_CREAT, 0o600)
    for descriptor in (unsealed, plain):
        os.ftruncate(descriptor, size)
        with socket.socket(fileno=os.dup(ends[1].fileno())) as sock:
            socket.send_fds(sock, [b"!"], [descriptor])
        os.close(descriptor)
        with pytest.raises(LinkMismatch, match="memory that it could take away again"):
            queue_link._receive_descriptor(ends[0], ADDRESS, SPEC, time.monotonic() + 60.0)


@pytest.mark.skipif(not SEALS, reason="this system has no sealed memory")
def test_nobody_can_make_the_memory_of_a_link_shorter() -> None:
    with memory_file(SPEC, 2, "link") as descriptor:
        for size in (0, SlotMemory.size(SPEC, 2) - 1):
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, size)
        assert os.fstat(descriptor).st_size == SlotMemory.size(SPEC, 2)


def test_memory_beyond_the_limit_of_the_control_group_is_refused_before_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "workers.links.memory.bytes_left_in_cgroups", lambda: iter((2**62, SlotMemory.size(SPEC, 2) - 1))
    )
    with (
        pytest.raises(TrainingError, match=r"cannot be had \(Cannot allocate memory\)"),
        memory_file(SPEC, 2, "link"),
    ):
        pass


def test_a_machine_without_control_groups_has_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.links.memory.bytes_left_in_cgroups", lambda: iter(()))
    with memory_file(SPEC, 2, "link") as descriptor:
        assert os.fstat(descriptor).st_size == SlotMemory.size(SPEC, 2)


def test_a_receiver_that_leaves_before_it_has_the_memory_is_named(
    ends: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(queue_link, "connect_to_receiver", lambda address, timeout: ends[0])
    monkeypatch.setattr(socket, "send_fds", gone)
    ends[1].send_bytes(HELLO)
    with pytest.raises(LinkClosed, match="stage 2 ended while the link was being opened"):
        queue_link.open_queue_sender(ADDRESS, SPEC, 60.0, "none")
    assert ends[0].closed


def test_a_queue_between_two_hosts_is_refused() -> None:
    apart = LinkAddress("link2", "stage 1", "stage 2", path="", key=b"key", depth=2)
    with pytest.raises(UserError, match=r"a queue is shared memory.*Give link\.kind=p2p or rpc"):
        queue_link.open_queue_sender(apart, SPEC, 1.0, "none")


@pytest.mark.parametrize("frame", [b"", b"\x02\0\0\0"])
def test_a_frame_that_was_cut_is_an_error_in_words(frame: bytes) -> None:
    with pytest.raises(TrainingError, match="a link delivered a frame that cannot be read"):
        _unframe(frame)


@pytest.mark.parametrize("kind", ["queue", "p2p"])
def test_a_receiver_that_only_met_strangers_says_so(tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time stands still until it has refused one, and is over then."""
    now, welcome, refused = [0.0], wire.authenticate, []

    def welcomed(*arguments: Any) -> Any:
        try:
            return welcome(*arguments)
        finally:
            now[0] = LIMIT + 1

    def stranger() -> None:
        with pytest.raises(AuthenticationError):
            wire.connect(address.path, b"wrong", LIMIT)
        refused.append(True)

    monkeypatch.setattr(wire, "authenticate", welcomed)
    monkeypatch.setattr(opening, "time", SimpleNamespace(monotonic=lambda: now[0]))
    address = LinkAddress("link1", "stage 1", "stage 2", path=str(tmp_path / "link1"), key=b"key", depth=2)
    thread = threading.Thread(target=stranger)
    thread.start()
    with pytest.raises(LinkTimeout, match=f"within {LIMIT:g} s; connections refused for a wrong key: 1$"):
        open_receiver(kind, address, TensorSpec((4,), torch.float32), LIMIT, CPU)
    thread.join(LIMIT)
    assert refused
