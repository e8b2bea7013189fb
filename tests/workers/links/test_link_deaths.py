"""When a process dies everybody it had a link with learns of it, and the others go on: on each kind of link."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.waiting import LIMIT
from tests.workers.links.link_team import Peer, ReplicaGroup, started_team
from tests.workers.links.test_link_contract import KINDS

# Five processes start, which takes minutes on a very busy machine.
pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]
BLOCKED = ("stage 1", "stage 2", "stage 5")
"""Each on a link of another kind."""


@pytest.fixture(scope="module")
def learned() -> dict[str, list[tuple[str, str]]]:
    """What those got to know who were blocked on a process when it was killed, by its name."""
    return {}


@pytest.fixture(scope="module")
def survivors(
    tmp_path_factory: pytest.TempPathFactory, learned: dict[str, list[tuple[str, str]]]
) -> Iterator[ReplicaGroup]:
    """A team of which two have been killed while all others waited for them."""
    folder = tmp_path_factory.mktemp("team")
    with started_team(folder, *BLOCKED, "the sender", "the receiver") as team:
        ways = list(zip(KINDS, [team.peers[name] for name in BLOCKED], strict=True))
        blocked = []
        for kind, peer in ways:
            link = team.link(kind, sender="the sender", receiver=peer.name)
            sent = team.peers["the sender"].call("send", link=link, step=0, shape=[4, 3, 2])
            assert peer.call("recv", link=link) == sent
            blocked.append((peer, {"do": "recv", "link": link}))
        learned["the sender"] = killed_while_blocked(team.peers["the sender"], blocked)
        blocked = []
        for kind, peer in ways:
            link = team.link(kind, sender=peer.name, receiver="the receiver", depth=1)
            peer.call("send", link=link, step=0, shape=[4, 3, 2])
            blocked.append((peer, {"do": "send", "link": link, "step": 1, "shape": [4, 3, 2]}))
        learned["the receiver"] = killed_while_blocked(team.peers["the receiver"], blocked)
        yield team


def killed_while_blocked(victim: Peer, blocked: list[tuple[Peer, dict[str, Any]]]) -> list[tuple[str, str]]:
    for peer, request in blocked:
        peer.begin_blocked(**request)
    victim.kill()
    told = [peer.failure() for peer, _ in blocked]
    for peer, request in blocked:  # and it stays so
        peer.begin(**request)
        told.append(peer.failure())
        peer.call("close", link=request["link"])
    return told


@pytest.mark.parametrize("victim", ["the sender", "the receiver"])
def test_who_is_blocked_on_a_process_that_is_killed_learns_of_it(
    survivors: ReplicaGroup, learned: dict[str, list[tuple[str, str]]], victim: str
) -> None:
    """And need not wait until its own time is over, which would be another error."""
    assert [error for error, _ in learned[victim]] == ["LinkClosed"] * 2 * len(KINDS)
    assert all(f"{victim} ended without closing the link" in message for _, message in learned[victim])


def test_survivors_go_on_and_stop_though_others_are_dead(survivors: ReplicaGroup) -> None:
    """Whose agent would wait for the dead gives up after its own time; whose does not wait for them stops in order."""
    for kind in KINDS:
        link = survivors.link(kind)
        sent = survivors.stage1.call("send", link=link, step=0, shape=[4, 3, 2])
        assert survivors.stage2.call("recv", link=link) == sent
        survivors.close(link)
    assert survivors.stage1.call("stop_agent", graceful=True, timeout=3) is False
    assert survivors.stage2.call("stop_agent", graceful=False, timeout=100) is True
    for peer in (survivors.stage1, survivors.stage2):
        peer.begin("leave")
        assert peer.process.wait(LIMIT) == 0
