"""The two ends of the RPC link without an agent: calls go straight to the handlers, in the order a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch.distributed import rpc
from torch.futures import Future

from tests.waiting import LIMIT, wait_until
from workers.links import rpc as rpc_link
from workers.links import rpc_calls
from workers.links.base import LinkAddress, LinkClosed, LinkMismatch, LinkTimeout
from workers.links.messages import Header, TensorSpec
from workers.links.rpc import RpcReceiver, RpcSender, open_rpc_receiver, open_rpc_sender
from workers.links.rpc_calls import CLOSED, TAKEN, PeerState, deregister, on_closing, on_message, on_watch_sender

ADDRESS = LinkAddress("link1", "stage 1", "stage 2", path="", key=b"", depth=2)
SPEC = TensorSpec((2, 3), torch.float32)
CPU = torch.device("cpu")


class Agents:
    """Stands for the agents of all processes: carries a call at once, unless it is held back or the process is dead."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.held: list[Callable[[], None]] = []
        self.hold = False

    def carry(self, to: str, handler: Callable[..., Future[Any]], args: tuple[Any, ...], timeout: float) -> Future[Any]:
        if to in self.dead:
            raise RuntimeError(f"nobody is called {to}\nand more about it")
        if not (self.hold and handler is on_message):
            return handler(*args)
        answer: Future[Any] = Future()

        def add_message() -> None:
            handler(*args).add_done_callback(lambda done: answer.set_result(done.wait()))

        self.held.append(add_message)
        return answer


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Agents:
    carrier = Agents()
    monkeypatch.setattr(rpc, "rpc_async", carrier.carry)
    return carrier


@pytest.fixture
def ends(agents: Agents) -> Iterator[tuple[RpcSender, RpcReceiver]]:
    with ThreadPoolExecutor(1) as threads:
        opened = threads.submit(open_rpc_receiver, ADDRESS, SPEC, LIMIT, "none", CPU)
        sender = open_rpc_sender(ADDRESS, SPEC, LIMIT, "none")
        receiver = opened.result(LIMIT)
    yield sender, receiver
    receiver.close()
    sender.close()


def header(step: int) -> Header:
    return Header(step, 0, (0.0,))


def batch(step: int) -> torch.Tensor:
    return torch.full((2, 3), float(step))


def test_numbers_put_messages_in_order_that_the_agent_runs_in_another(
    agents: Agents, ends: tuple[RpcSender, RpcReceiver]
) -> None:
    sender, receiver = ends
    agents.hold = True
    for step in range(2):
        sender.send(header(step), batch(step), LIMIT)
    for add_message in reversed(agents.held):
        add_message()
    assert receiver.waiting() == 2
    for step in range(2):
        message = receiver.recv(LIMIT)
        assert message.header.step == step
        assert torch.equal(message.tensor, batch(step))


def test_a_message_that_was_taken_makes_room_for_one_more(ends: tuple[RpcSender, RpcReceiver]) -> None:
    sender, receiver = ends
    for step in range(ADDRESS.depth):
        sender.send(header(step), batch(step), LIMIT)
    with pytest.raises(LinkTimeout, match=r"link1 \(stage 1 -> stage 2\): no room within 0 s: stage 2 has not taken"):
        sender.await_room(0.0)
    receiver.recv(LIMIT)
    sender.send(header(2), batch(2), 0.0)
    assert [receiver.recv(0.0).header.step for _ in range(2)] == [1, 2]
    assert sender.bytes_sent == 3 * 24


def test_what_is_dropped_unread_is_no_room_for_more(ends: tuple[RpcSender, RpcReceiver]) -> None:
    """The answer to a message that nobody took tells the sender that the link is over."""
    sender, receiver = ends
    sender.send(header(0), batch(0), LIMIT)
    receiver.close()
    with pytest.raises(LinkClosed, match="cannot send message 1: stage 2 closed its end"):
        sender.await_room(0.0)
    assert receiver.waiting() == 0


def test_a_message_for_a_link_that_was_closed_ends_its_sender(agents: Agents) -> None:
    """Nobody watches here: the answer alone must say it."""
    sender = RpcSender(ADDRESS, SPEC)
    sender.send(header(0), batch(0), LIMIT)
    with pytest.raises(LinkClosed, match="cannot send message 1: stage 2 closed its end"):
        sender.await_room(0.0)


def test_a_message_that_cannot_be_called_ends_its_sender(agents: Agents) -> None:
    sender = RpcSender(ADDRESS, SPEC)
    agents.dead.add("stage-2")
    sender.send(header(0), batch(0), LIMIT)
    with pytest.raises(LinkClosed, match="cannot send message 1: stage 2 ended without closing the link"):
        sender.await_room(0.0)


def test_a_sender_that_says_goodbye_is_read_to_its_last_message(ends: tuple[RpcSender, RpcReceiver]) -> None:
    sender, receiver = ends
    sender.send(header(0), batch(0), LIMIT)
    sender.close()
    assert receiver.recv(LIMIT).header.step == 0
    with pytest.raises(LinkClosed, match="message 1 cannot be received: stage 1 closed its end after 1 messages"):
        receiver.recv(0.0)
    sender.close()  # again: nothing


def test_goodbye_is_answered_when_all_has_arrived_and_not_before(
    agents: Agents, ends: tuple[RpcSender, RpcReceiver]
) -> None:
    sender, receiver = ends
    agents.hold = True
    sender.send(header(0), batch(0), LIMIT)
    flushed = on_closing(ADDRESS.name, 1)
    assert not flushed.done()
    agents.held.pop()()
    assert flushed.wait() == TAKEN
    assert receiver.recv(LIMIT).header.step == 0


def test_goodbye_is_answered_by_an_end_that_closes_without_the_rest(ends: tuple[RpcSender, RpcReceiver]) -> None:
    _, receiver = ends
    flushed = on_closing(ADDRESS.name, 1)
    receiver.close()
    assert flushed.wait() == TAKEN


def test_a_close_that_nobody_confirms_says_what_may_be_lost(
    agents: Agents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rpc_link, "FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(rpc, "rpc_async", lambda to, handler, args, timeout: Future())
    sender = RpcSender(ADDRESS, SPEC)
    sender.close()
    assert "link1 (stage 1 -> stage 2): messages may be lost: stage 2 did not confirm them" in caplog.text


def test_calls_for_a_link_that_nobody_has_open_are_answered_at_once(agents: Agents) -> None:
    message = header(0).to_bytes()
    for answer in (
        on_message("elsewhere", 0, message, batch(0)),
        on_closing("elsewhere", 0),
        on_watch_sender("elsewhere"),
    ):
        assert answer.wait() == CLOSED


def test_an_end_that_was_replaced_is_not_forgotten_with_the_one_before(ends: tuple[RpcSender, RpcReceiver]) -> None:
    """The table keeps the end that is open now, whatever an older one of that name does."""
    sender, receiver = ends
    deregister(RpcReceiver(ADDRESS, SPEC, CPU))
    sender.send(header(0), batch(0), LIMIT)
    assert receiver.recv(0.0).header.step == 0


def test_the_first_reason_of_an_end_is_the_one_that_is_told(ends: tuple[RpcSender, RpcReceiver]) -> None:
    _, receiver = ends
    receiver.peer.answered(None, RuntimeError("connection reset"))
    receiver.peer.answered("closed", None)
    with pytest.raises(LinkClosed, match="message 0 cannot be received: stage 1 ended without closing the link"):
        receiver.recv(0.0)


def test_whoever_watches_an_end_learns_that_it_closes() -> None:
    peer, watcher = PeerState("stage 2"), Future[str]()
    peer.add_watcher(watcher)
    assert not watcher.done()
    peer.release()
    assert watcher.wait() == CLOSED
    peer.release()  # nobody is left: a future that is answered twice would raise


def test_an_agent_whose_peer_is_not_there_is_named_with_the_first_line_of_why(agents: Agents) -> None:
    agents.dead.add("stage-2")
    with pytest.raises(LinkClosed, match=r"stage 2 cannot be reached .*\(nobody is called stage-2\)"):
        open_rpc_sender(ADDRESS, SPEC, LIMIT, "none")
    assert on_watch_sender(ADDRESS.name).wait() == CLOSED  # what failed to open is forgotten


def test_a_receiver_that_never_opens_is_waited_for_no_longer_than_told(agents: Agents) -> None:
    address = LinkAddress("never", "stage 1", "stage 2", path="", key=b"", depth=2)
    with pytest.raises(LinkTimeout, match="stage 2 did not open its end within 0 s"):
        open_rpc_sender(address, SPEC, 0.0, "none")


def test_a_sender_that_never_comes_is_waited_for_no_longer_than_told(agents: Agents) -> None:
    address = LinkAddress("never2", "stage 1", "stage 2", path="", key=b"", depth=2)
    with pytest.raises(LinkTimeout, match="stage 1 did not connect within 0 s"):
        open_rpc_receiver(address, SPEC, 0.0, "none", CPU)
    assert on_closing(address.name, 0).wait() == CLOSED  # what failed to open is forgotten


@pytest.mark.parametrize("early", ["sender", "receiver"])
def test_ends_that_disagree_are_told_so_on_both_sides_whoever_came_first(agents: Agents, early: str) -> None:
    other = TensorSpec((2, 4), torch.float32)
    with ThreadPoolExecutor(2) as threads:

        def sending() -> Any:
            return threads.submit(open_rpc_sender, ADDRESS, SPEC, LIMIT, "none")

        def receiving() -> Any:
            return threads.submit(open_rpc_receiver, ADDRESS, other, LIMIT, "none", CPU)

        if early == "sender":
            first = sending()
            wait_until(lambda: ADDRESS.name in rpc_calls._early_hellos, "the hello")
            second = receiving()
        else:
            first = receiving()
            wait_until(lambda: ADDRESS.name in rpc_calls._receivers, "the receiver")
            second = sending()
        for end in (first, second):
            with pytest.raises(LinkMismatch, match=r"for tensors that differ: .*2, 3.* by stage 1, .*2, 4"):
                end.result(LIMIT)
