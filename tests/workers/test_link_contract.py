"""What every link promises, tried on each kind between real processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.link_team import Peer, Team

KINDS = ("queue", "rpc", "p2p")
FRAMED = ("queue", "p2p")
VICTIMS = ("stage 3", "stage 4")


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Processes cost seconds to start, so one team serves the whole module; links are opened per test."""
    private = tmp_path_factory.mktemp("private")
    store = tmp_path_factory.mktemp("store")
    before = set(os.listdir("/dev/shm"))
    with contextlib.ExitStack() as stack:
        peers = {name: Peer(name) for name in ("stage 1", "stage 2", "stage 5", *VICTIMS)}
        for peer in peers.values():
            stack.callback(peer.kill)
        for peer in peers.values():
            peer.await_ready()
        group = {"world_size": len(peers), "init_method": f"file://{store}/rpc", "timeout": 30}
        for rank, peer in enumerate(peers.values()):
            peer.begin("start_agent", name=peer.name, rank=rank, **group)
        for peer in peers.values():
            peer.end(40)
        yield Team(peers, private, f"file://{store}/links")
    assert os.listdir(private) == []
    assert set(os.listdir("/dev/shm")) <= before


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_messages_arrive_in_order_none_lost_none_twice(team: Team, kind: str) -> None:
    link = team.link(kind, depth=3, shape=(3, 2), dtype="int64")
    team.stage1.begin("send_many", link=link, count=10_000, longest_pause=0.003)
    team.stage2.begin("recv_many", link=link, count=10_000, longest_pause=0.003)
    team.stage1.end(60)
    assert team.stage2.end(60) == list(range(10_000))
    assert team.stage1.call("bytes_sent", link=link) == 10_000 * 3 * 2 * 8
    assert team.stage2.call("waiting", link=link) == 0
    team.close(link)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "bfloat16", "int64"])
def test_every_dtype_and_layout_arrives_bit_exact(team: Team, kind: str, dtype: str) -> None:
    link = team.link(kind, shape=(4, 3, 2), dtype=dtype)
    cases = [
        {"shape": [4, 3, 2]},
        {"shape": [2, 3, 2], "last": True},  # the last, smaller batch of an epoch
        {"shape": [4, 3, 2], "layout": "strided"},
        {"shape": [4, 3, 2], "layout": "transposed"},
        {"shape": [0, 3, 2], "levels": [0.25, 1e-300]},
        {"shape": [1, 1, 1]},
    ]
    for step, case in enumerate(cases):
        sent = team.stage1.call("send", link=link, step=step, dtype=dtype, **case)
        assert team.stage2.call("recv", link=link) == sent
    team.close(link)


@pytest.mark.parametrize("depth", [1, 3])
def test_a_sender_blocks_after_depth_unreceived_messages(team: Team, kind: str, depth: int) -> None:
    link = team.link(kind, depth=depth, shape=(2, 2))
    steps = iter(range(100))
    for _ in range(depth):
        team.stage1.call("send", link=link, step=next(steps), shape=[2, 2])
    for _ in range(2):  # a timeout leaves the link as it was
        team.stage1.begin("send", link=link, step=99, shape=[2, 2], timeout=0.2)
        error, message, duration = team.stage1.failure()
        assert error == "LinkTimeout"
        assert "stage 1 -> stage 2" in message
        assert "0.2 s" in message
        assert f"{depth} messages" in message
        assert 0.2 <= duration < 1
    for _ in range(20):
        deadline = time.monotonic() + 5  # what is on the wire may take a moment to be counted
        while (count := team.stage2.call("waiting", link=link)) != depth and time.monotonic() < deadline:
            pass
        assert count == depth
        step = team.stage2.call("recv", link=link)["step"]
        following = next(steps)
        assert following == step + depth
        team.stage1.call("send", link=link, step=following, shape=[2, 2])
    team.close(link)


def test_a_blocked_sender_goes_on_when_a_message_is_taken(team: Team, kind: str) -> None:
    link = team.link(kind, depth=1, shape=(2, 2))
    team.stage1.call("send", link=link, step=0, shape=[2, 2])
    team.stage1.begin("send", link=link, step=1, shape=[2, 2], timeout=10)
    time.sleep(0.1)
    team.stage2.call("recv", link=link)
    assert team.stage1.end()["step"] == 1
    team.close(link)


def test_a_received_tensor_stays_while_more_messages_come(team: Team, kind: str) -> None:
    link = team.link(kind, depth=2, shape=(4, 3, 2))
    for step in range(2):
        team.stage1.call("send", link=link, step=step, shape=[4, 3, 2])
    team.stage2.call("recv", link=link)
    changed = team.stage2.call("overwrite_held", link=link)
    sent = [team.stage1.call("send", link=link, step=2, shape=[4, 3, 2])]
    assert team.stage2.call("digest_held", link=link) == changed
    team.stage2.call("recv", link=link)
    assert team.stage2.call("recv", link=link) == sent[0]
    team.close(link)


def test_a_receiver_gives_up_in_time_and_can_go_on(team: Team, kind: str) -> None:
    link = team.link(kind)
    team.stage2.begin("recv", link=link, timeout=0.2)
    error, message, duration = team.stage2.failure()
    assert error == "LinkTimeout"
    assert "stage 1 -> stage 2" in message
    assert "0.2 s" in message
    assert 0.2 <= duration < 1
    sent = team.stage1.call("send", link=link, step=0, shape=[4, 3, 2])
    assert team.stage2.call("recv", link=link) == sent
    team.close(link)


def test_what_was_sent_before_an_orderly_close_still_arrives(team: Team, kind: str) -> None:
    link = team.link(kind, depth=2)
    sent = [team.stage1.call("send", link=link, step=step, shape=[4, 3, 2]) for step in range(2)]
    team.stage1.call("close", link=link)
    assert [team.stage2.call("recv", link=link) for _ in range(2)] == sent
    team.stage2.begin("recv", link=link)
    error, message, duration = team.stage2.failure()
    assert error == "LinkClosed"
    assert "stage 1 closed its end after 2 messages" in message
    assert duration < 1
    team.stage1.begin("send", link=link, step=0, shape=[4, 3, 2])
    assert team.stage1.failure()[0] == "LinkClosed"
    team.close(link)


def test_a_large_message_survives_a_close_right_behind_it(team: Team, kind: str) -> None:
    elements = 10_000_000
    link = team.link(kind, depth=1, shape=(elements,))
    team.stage1.call("send_and_close", link=link, elements=elements)
    ones = b"\x00\x00\x80\x3f" * elements
    assert team.stage2.call("recv", link=link)["sha"] == hashlib.sha256(ones).hexdigest()
    team.close(link)


def test_a_blocked_sender_learns_that_the_receiver_closes(team: Team, kind: str) -> None:
    link = team.link(kind, depth=1)
    team.stage1.call("send", link=link, step=0, shape=[4, 3, 2])
    team.stage1.begin("send", link=link, step=1, shape=[4, 3, 2])
    time.sleep(0.1)
    team.stage2.call("close", link=link)
    error, message, duration = team.stage1.failure()
    assert error == "LinkClosed"
    assert "stage 2 closed its end" in message
    assert duration < 1
    team.close(link)


def test_a_full_link_closes_at_once_at_the_sender_and_loses_nothing(team: Team, kind: str) -> None:
    link = team.link(kind, depth=2)
    sent = [team.stage1.call("send", link=link, step=step, shape=[4, 3, 2]) for step in range(2)]
    team.stage1.begin("send", link=link, step=2, shape=[4, 3, 2], timeout=0.1)
    assert team.stage1.failure()[0] == "LinkTimeout"
    started = time.monotonic()
    team.stage1.call("close", link=link)
    assert time.monotonic() - started < 1
    assert [team.stage2.call("recv", link=link) for _ in range(2)] == sent
    team.stage2.begin("recv", link=link)
    assert team.stage2.failure()[0] == "LinkClosed"
    team.close(link)


def test_a_full_link_closes_at_once_at_the_receiver(team: Team, kind: str) -> None:
    link = team.link(kind, depth=2)
    for step in range(2):
        team.stage1.call("send", link=link, step=step, shape=[4, 3, 2])
    for peer in (team.stage2, team.stage1):
        started = time.monotonic()
        peer.call("close", link=link)
        assert time.monotonic() - started < 1
    for peer, do in ((team.stage1, {"do": "send", "step": 2, "shape": [4, 3, 2]}), (team.stage2, {"do": "recv"})):
        peer.begin(link=link, **do)
        assert peer.failure()[0] == "LinkClosed"


@pytest.mark.parametrize(
    ("shape", "dtype"), [([5, 3, 2], "float32"), ([4, 3], "float32"), ([4, 3, 2], "float64")], ids=str
)
def test_a_tensor_that_does_not_fit_is_refused(team: Team, kind: str, shape: list[int], dtype: str) -> None:
    link = team.link(kind)
    team.stage1.begin("send", link=link, step=0, shape=shape, dtype=dtype)
    error, message, _ = team.stage1.failure()
    assert error == "LinkMismatch"
    assert "[4, 3, 2] float32" in message
    assert f"{shape} {dtype}" in message
    sent = team.stage1.call("send", link=link, step=1, shape=[4, 3, 2])
    assert team.stage2.call("recv", link=link) == sent
    team.close(link)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"dtype": "float64"}, "[4, 2] float64"),
        ({"shape": [4, 3]}, "[4, 3] float32"),
        ({"depth": 5}, "5"),
        ({"codec": "bf16"}, "bf16"),
    ],
    ids=["dtype", "shape", "depth", "codec"],
)
def test_a_mismatch_is_found_at_the_handshake_and_named_on_both_ends(
    team: Team, kind: str, other: dict[str, Any], expected: str
) -> None:
    address = team.address()
    common = {"kind": kind, "shape": [4, 2], "dtype": "float32"}
    theirs = {**common, **other}
    team.stage1.begin("open", end="sender", address=address, **common)
    theirs["address"] = {**address, "depth": theirs.pop("depth", address["depth"])}
    team.stage2.begin("open", end="receiver", **theirs)
    for peer in (team.stage1, team.stage2):
        error, message, _ = peer.failure()
        assert error == "LinkMismatch"
        assert "by stage 1" in message
        assert f"{expected} by stage 2" in message


def test_an_end_that_stays_alone_gives_up_in_time(team: Team, kind: str) -> None:
    common = {"kind": kind, "shape": [4], "dtype": "float32", "timeout": 0.5}
    for peer, end, missing in ((team.stage1, "sender", "stage 2"), (team.stage2, "receiver", "stage 1")):
        peer.begin("open", end=end, address=team.address(), **common)
        error, message, duration = peer.failure()
        assert error == "LinkTimeout"
        assert missing in message
        assert "0.5 s" in message
        assert 0.4 < duration < 2


@pytest.mark.parametrize("kind", FRAMED)
def test_a_wrong_key_is_refused_and_the_right_sender_still_gets_in(team: Team, kind: str) -> None:
    address = team.address()
    common = {"kind": kind, "address": address, "shape": [4], "dtype": "float32"}
    team.stage2.begin("open", end="receiver", **common)
    team.stage1.begin("open", end="sender", key="wrong", **common)
    error, message, _ = team.stage1.failure()
    assert error == "LinkMismatch"
    assert "refused the key" in message
    with socket.socket(socket.AF_UNIX) as garbage:
        garbage.connect(address["path"])
        garbage.sendall(b"GET / HTTP/1.1\r\n\r\n")
    team.stage1.call("open", end="sender", **common)
    team.stage2.end()
    link = address["name"]
    sent = team.stage1.call("send", link=link, step=0, shape=[4])
    assert team.stage2.call("recv", link=link) == sent
    assert not Path(address["path"]).exists()
    team.close(link)


@pytest.mark.parametrize("kind", FRAMED)
def test_a_receiver_that_only_met_strangers_says_so(team: Team, kind: str) -> None:
    common = {"kind": kind, "address": team.address(), "shape": [4], "dtype": "float32"}
    team.stage2.begin("open", end="receiver", timeout=1.5, **common)
    team.stage1.begin("open", end="sender", key="wrong", **common)
    assert team.stage1.failure()[0] == "LinkMismatch"
    error, message, _ = team.stage2.failure()
    assert error == "LinkTimeout"
    assert "connections refused for a wrong key: 1" in message


def test_receivers_blocked_on_a_killed_sender_learn_at_once(team: Team) -> None:
    victim = VICTIMS[0]
    blocked = []
    for kind, peer in (("queue", team.stage2), ("rpc", team.stage1), ("p2p", team.peers["stage 5"])):
        link = team.link(kind, sender=victim, receiver=peer.name)
        sent = team.peers[victim].call("send", link=link, step=0, shape=[4, 3, 2])
        assert peer.call("recv", link=link) == sent
        blocked.append((peer, {"do": "recv", "link": link, "timeout": 60}))
    _kill_while_blocked(team, victim, blocked)


def test_senders_blocked_on_a_killed_receiver_learn_at_once(team: Team) -> None:
    victim = VICTIMS[1]
    blocked = []
    for kind, peer in (("queue", team.stage2), ("rpc", team.stage1), ("p2p", team.peers["stage 5"])):
        link = team.link(kind, sender=peer.name, receiver=victim, depth=1)
        peer.call("send", link=link, step=0, shape=[4, 3, 2])
        blocked.append((peer, {"do": "send", "link": link, "step": 1, "shape": [4, 3, 2], "timeout": 60}))
    _kill_while_blocked(team, victim, blocked)


def test_a_link_between_survivors_works_after_other_processes_died(team: Team, kind: str) -> None:
    for victim in VICTIMS:
        team.peers[victim].kill()
    link = team.link(kind)
    sent = team.stage1.call("send", link=link, step=0, shape=[4, 3, 2])
    assert team.stage2.call("recv", link=link) == sent
    team.close(link)


@pytest.mark.parametrize("graceful", [True, False])
def test_stopping_the_agent_ends_in_time_though_a_peer_is_dead(team: Team, graceful: bool) -> None:
    for victim in VICTIMS:
        team.peers[victim].kill()
    peer = team.stage1 if graceful else team.stage2
    peer.begin("stop_agent", graceful=graceful, timeout=3)
    started = time.monotonic()
    peer.end(10)
    assert time.monotonic() - started < 4.5
    peer.begin("leave")
    assert peer.process.wait(5) == 0


def _kill_while_blocked(team: Team, victim: str, blocked: list[tuple[Peer, dict[str, Any]]]) -> None:
    for peer, request in blocked:
        peer.begin(**request)
    time.sleep(0.3)
    team.peers[victim].kill()
    killed = time.monotonic()
    for peer, _ in blocked:
        error, message, _ = peer.failure()
        assert time.monotonic() - killed < 1
        assert error == "LinkClosed"
        assert f"{victim} ended without closing the link" in message
    for peer, request in blocked:  # and it stays so
        peer.begin(**request)
        assert peer.failure()[0] == "LinkClosed"
        peer.call("close", link=request["link"])
