"""What every link promises, tried on each kind between real processes."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import wait_until
from tests.workers.links.fake_gpu import GPUS
from tests.workers.links.link_team import ReplicaGroup, started_team
from tests.workers.links.processes import named_memory

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]
KINDS = ("queue", "rpc", "p2p")
FRAMED = ("queue", "p2p")
ON_GPUS = tuple(GPUS)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaGroup]:
    """Processes cost seconds to start, so one team serves the whole module; links are opened per test."""
    with started_team(tmp_path_factory.mktemp("team"), "stage 1", "stage 2") as team:
        yield team


@pytest.fixture(params=(*KINDS, *ON_GPUS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.processes
def test_messages_arrive_in_order_none_lost_none_twice(team: ReplicaGroup, kind: str) -> None:
    link = team.link(kind, depth=3, shape=(3, 2), dtype="int64")
    team.stage1.begin("send_many", link=link, count=3_000, longest_pause=0.003)
    team.stage2.begin("recv_many", link=link, count=3_000, longest_pause=0.003)
    team.stage1.end()
    assert team.stage2.end() == list(range(3_000))
    assert team.stage1.call("bytes_sent", link=link) == 3_000 * 3 * 2 * 8
    assert team.stage2.call("waiting", link=link) == 0
    team.close(link)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "bfloat16", "int64"])
def test_every_dtype_and_layout_arrives_bit_exact(team: ReplicaGroup, kind: str, dtype: str) -> None:
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
def test_a_sender_blocks_after_depth_unreceived_messages(team: ReplicaGroup, kind: str, depth: int) -> None:
    link = team.link(kind, depth=depth, shape=(2, 2))
    steps = iter(range(100))
    for _ in range(depth):
        team.stage1.call("send", link=link, step=next(steps), shape=[2, 2])
    for _ in range(2):  # a timeout leaves the link as it was
        team.stage1.begin("send", link=link, step=99, shape=[2, 2], timeout=0.2)
        error, message = team.stage1.failure()
        assert error == "LinkTimeout"
        assert "stage 1 -> stage 2" in message
        assert "0.2 s" in message
        assert f"{depth} messages" in message
    for _ in range(20):
        # What is on the wire may take a moment to be counted.
        wait_until(lambda: team.stage2.call("waiting", link=link) == depth, f"{depth} messages")
        step = team.stage2.call("recv", link=link)["step"]
        following = next(steps)
        assert following == step + depth
        team.stage1.call("send", link=link, step=following, shape=[2, 2])
    team.close(link)


def test_a_blocked_sender_goes_on_when_a_message_is_taken(team: ReplicaGroup, kind: str) -> None:
    link = team.link(kind, depth=1, shape=(2, 2))
    team.stage1.call("send", link=link, step=0, shape=[2, 2])
    team.stage1.begin_blocked("send", link=link, step=1, shape=[2, 2])
    team.stage2.call("recv", link=link)
    assert team.stage1.end()["step"] == 1
    # Nothing of a call is left out: waiting for the other end, then the checksum and the copy.
    assert team.stage1.call("measured", end="sender", link=link) == ["waiting", "computing", "waiting", "copying"] * 2
    assert team.stage2.call("measured", end="receiver", link=link) == ["waiting", "copying", "computing"]
    team.close(link)


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_a_bit_that_is_flipped_on_the_way_is_found(team: ReplicaGroup, kind: str, codec: str) -> None:
    link = team.link(kind, shape=(2, 4, 3, 2, 2), codec=codec, flips_at=1)
    sent = [team.stage1.call("send", link=link, step=step, shape=[2, 4, 3, 2, 2]) for step in range(2)]
    assert team.stage2.call("recv", link=link)["step"] == sent[0]["step"]
    team.stage2.begin("recv", link=link)
    error, message = team.stage2.failure()
    assert error == "LinkCorrupted"
    assert "the message of step 1 has changed on its way from stage 1 on " in message
    assert "(link.checksum)" in message
    team.close(link)


def test_a_received_tensor_stays_while_more_messages_come(team: ReplicaGroup, kind: str) -> None:
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


def test_a_receiver_gives_up_after_its_own_time_and_can_go_on(team: ReplicaGroup, kind: str) -> None:
    link = team.link(kind)
    team.stage2.begin("recv", link=link, timeout=0.2)
    error, message = team.stage2.failure()
    assert error == "LinkTimeout"
    assert "stage 1 -> stage 2" in message
    assert "0.2 s" in message
    sent = team.stage1.call("send", link=link, step=0, shape=[4, 3, 2])
    assert team.stage2.call("recv", link=link) == sent
    team.close(link)


def test_what_was_sent_before_an_orderly_close_still_arrives(team: ReplicaGroup, kind: str) -> None:
    link = team.link(kind, depth=2)
    sent = [team.stage1.call("send", link=link, step=step, shape=[4, 3, 2]) for step in range(2)]
    team.stage1.call("close", link=link)
    assert [team.stage2.call("recv", link=link) for _ in range(2)] == sent
    team.stage2.begin("recv", link=link)
    error, message = team.stage2.failure()
    assert error == "LinkClosed"
    assert "stage 1 closed its end after 2 messages" in message
    team.stage1.begin("send", link=link, step=0, shape=[4, 3, 2])
    assert team.stage1.failure()[0] == "LinkClosed"
    team.close(link)


def test_a_large_message_survives_a_close_right_behind_it(team: ReplicaGroup, kind: str) -> None:
    elements = 10_000_000
    link = team.link(kind, depth=1, shape=(elements,))
    team.stage1.call("send_and_close", link=link, elements=elements)
    ones = b"\x00\x00\x80\x3f" * elements
    assert team.stage2.call("recv", link=link)["sha"] == hashlib.sha256(ones).hexdigest()
    team.close(link)


def test_a_blocked_sender_learns_that_the_receiver_closes(team: ReplicaGroup, kind: str) -> None:
    link = team.link(kind, depth=1)
    team.stage1.call("send", link=link, step=0, shape=[4, 3, 2])
    team.stage1.begin_blocked("send", link=link, step=1, shape=[4, 3, 2])
    team.stage2.call("close", link=link)
    error, message = team.stage1.failure()
    assert error == "LinkClosed"
    assert "stage 2 closed its end" in message
    team.close(link)


def test_a_full_link_closes_at_the_sender_before_anything_is_taken_and_loses_nothing(
    team: ReplicaGroup, kind: str
) -> None:
    link = team.link(kind, depth=2)
    sent = [team.stage1.call("send", link=link, step=step, shape=[4, 3, 2]) for step in range(2)]
    team.stage1.begin("send", link=link, step=2, shape=[4, 3, 2], timeout=0.1)
    assert team.stage1.failure()[0] == "LinkTimeout"
    assert team.stage1.call("close", link=link) == []
    assert [team.stage2.call("recv", link=link) for _ in range(2)] == sent
    team.stage2.begin("recv", link=link)
    assert team.stage2.failure()[0] == "LinkClosed"
    team.close(link)


def test_a_full_link_closes_at_the_receiver_before_anything_is_taken(team: ReplicaGroup, kind: str) -> None:
    link = team.link(kind, depth=2)
    for step in range(2):
        team.stage1.call("send", link=link, step=step, shape=[4, 3, 2])
    for peer in (team.stage2, team.stage1):
        assert peer.call("close", link=link) == []
    for peer, do in ((team.stage1, {"do": "send", "step": 2, "shape": [4, 3, 2]}), (team.stage2, {"do": "recv"})):
        peer.begin(link=link, **do)
        assert peer.failure()[0] == "LinkClosed"


@pytest.mark.parametrize(
    ("shape", "dtype"), [([5, 3, 2], "float32"), ([4, 3], "float32"), ([4, 3, 2], "float64")], ids=str
)
def test_a_tensor_that_does_not_fit_is_refused(team: ReplicaGroup, kind: str, shape: list[int], dtype: str) -> None:
    link = team.link(kind)
    team.stage1.begin("send", link=link, step=0, shape=shape, dtype=dtype)
    error, message = team.stage1.failure()
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
    team: ReplicaGroup, kind: str, other: dict[str, Any], expected: str
) -> None:
    address = team.address()
    common = {"kind": kind, "shape": [4, 2], "dtype": "float32"}
    theirs = {**common, **other}
    team.stage1.begin("open", end="sender", address=address, **common)
    theirs["address"] = {**address, "depth": theirs.pop("depth", address["depth"])}
    team.stage2.begin("open", end="receiver", **theirs)
    for peer in (team.stage1, team.stage2):
        error, message = peer.failure()
        assert error == "LinkMismatch"
        assert "by stage 1" in message
        assert f"{expected} by stage 2" in message


def test_an_end_that_stays_alone_gives_up_after_its_own_time(team: ReplicaGroup, kind: str) -> None:
    common = {"kind": kind, "shape": [4], "dtype": "float32", "timeout": 0.5}
    for peer, end, missing in ((team.stage1, "sender", "stage 2"), (team.stage2, "receiver", "stage 1")):
        peer.begin("open", end=end, address=team.address(), **common)
        error, message = peer.failure()
        assert error == "LinkTimeout"
        assert missing in message
        assert "0.5 s" in message


@pytest.mark.parametrize("kind", FRAMED)
def test_a_wrong_key_is_refused_and_the_right_sender_still_gets_in(team: ReplicaGroup, kind: str) -> None:
    address = team.address()
    common = {"kind": kind, "address": address, "shape": [4], "dtype": "float32"}
    team.stage2.begin("open", end="receiver", **common)
    team.stage1.begin("open", end="sender", key="wrong", **common)
    error, message = team.stage1.failure()
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


def test_nothing_that_a_link_shares_has_a_name_that_could_be_left_behind(team: ReplicaGroup, kind: str) -> None:
    link = team.link(kind)
    team.stage1.call("send", link=link, step=0, shape=[4, 3, 2])
    for peer in (team.stage1, team.stage2):
        assert named_memory(peer.process.pid) == set()
    team.stage2.call("recv", link=link)
    team.close(link)
