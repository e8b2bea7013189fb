"""Links that outlive the process at the other end: what was sent is sent again, what was seen is dropped."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch

from pipeline.errors import TrainingError
from tests.waiting import LIMIT, wait_until
from tests.workers.links.reopened import BYTES, SPEC, Link, batch, dies, header, joined, steps
from workers.links.base import LinkClosed, LinkTimeout, Sender
from workers.links.factory import open_sender
from workers.links.messages import Message, TensorSpec
from workers.links.replay import ReplayBuffer
from workers.links.replaying import ATTEND_SECONDS, ReplayingSender, ResumingReceiver
from workers.links.resharding import RowRange, slicing


@pytest.fixture
def link(tmp_path: Path) -> Link:
    return Link(tmp_path)


@pytest.fixture
def two_links(tmp_path: Path) -> list[Link]:
    for name in "ab":
        (tmp_path / name).mkdir()
    return [Link(tmp_path / name, depth) for name, depth in (("a", 4), ("b", 2))]


@pytest.fixture
def log(tmp_path: Path) -> ReplayBuffer:
    return ReplayBuffer(tmp_path / "log")


def test_what_does_not_fit_into_memory_waits_on_disk_and_comes_back_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = ReplayBuffer(folder, limit=2 * BYTES)
    for step in range(5):
        log.add(header(step), batch(step))
    assert len(list(folder.iterdir())) == 3
    assert log.steps() == list(range(5))
    for step in range(5):
        message = log.get(step)
        assert isinstance(message, Message)
        assert message.header == header(step)
        assert torch.equal(message.tensor, batch(step))
    log.forget(4)
    assert log.steps() == [4]
    assert log.get(3) is None
    assert [path.name for path in folder.iterdir()] == ["step_4.safetensors"]
    log.add(header(5), batch(5))  # there is room in memory again
    assert len(list(folder.iterdir())) == 1
    log.close()
    assert not folder.exists()


def test_a_new_receiver_gets_everything_since_the_snapshot(link: Link, tmp_path: Path) -> None:
    log = ReplayBuffer(tmp_path / "log", limit=BYTES)
    sender, receiver = link.both(log)
    for step in range(6):
        sender.send(header(step), batch(step), LIMIT)
        assert steps(receiver, 1) == [step]
    sender.forget(3)
    dies(receiver)
    successor = link.soon(lambda: ResumingReceiver(link.receiver, LIMIT, 3))
    sender.send(header(6), batch(6), LIMIT)  # does not wait for the room that all of them need
    with link.serving(sender.serve):
        assert steps(successor.result(LIMIT), 4) == [3, 4, 5, 6]
    for step in (7, 8):
        sender.send(header(step), batch(step), LIMIT)
    assert steps(successor.result(LIMIT), 2) == [7, 8]
    assert sender.bytes_sent == (6 + 4 + 2) * BYTES
    sender.close()
    assert not (tmp_path / "log").exists()


def test_a_new_sender_repeats_itself_and_the_receiver_drops_what_it_has_seen(link: Link, log: ReplayBuffer) -> None:
    sender, receiver = link.both(log)
    for step in range(4):
        sender.send(header(step), batch(step), LIMIT)
        receiver.recv(LIMIT)
    dies(sender)
    rest = link.soon(lambda: steps(receiver, 3))
    successor = ReplayingSender(link.sender, link.log(), LIMIT)
    for step in range(2, 7):
        successor.send(header(step), batch(step), LIMIT)
    assert rest.result(LIMIT) == [4, 5, 6]


def test_a_receiver_that_starts_from_a_snapshot_drops_what_came_before_it(link: Link, log: ReplayBuffer) -> None:
    sender, receiver = link.both(log, start_step=2)
    sending = link.soon(lambda: [sender.send(header(step), batch(step), LIMIT) for step in range(4)])
    assert steps(receiver, 2) == [2, 3]
    sending.result(LIMIT)


def test_a_gap_is_an_error_and_a_late_beginning_is_not(link: Link, log: ReplayBuffer) -> None:
    sender, receiver = link.both(log)
    for step in (5, 6):  # in mode sequential a stage's first batch is that of its phase
        sender.send(header(step), batch(step), LIMIT)
    assert steps(receiver, 2) == [5, 6]
    sender.send(header(8), batch(8), LIMIT)
    with pytest.raises(TrainingError, match=r"link1 \(stage 1 -> stage 2\): step 8 came where step 7 was due"):
        receiver.recv(LIMIT)


def test_being_asked_for_room_for_a_moment_does_not_cut_the_repetition_short(link: Link, log: ReplayBuffer) -> None:
    # Who sends over several links asks each for room with next to no patience.
    sender, receiver = link.both(log)
    for step in range(6):
        sender.send(header(step), batch(step), LIMIT)
        if step < 4:  # the others fill the link
            receiver.recv(LIMIT)
    dies(receiver)
    successor = link.soon(lambda: ResumingReceiver(link.receiver, LIMIT, 0))
    asked = link.soon(lambda: sender.await_room(0.0))
    late = successor.result(LIMIT)
    with pytest.raises(LinkTimeout):
        asked.result(LIMIT)
    with pytest.raises(LinkTimeout):
        sender.await_room(0.05)
    rest = link.soon(lambda: steps(late, 6))
    sender.await_room(LIMIT)
    assert rest.result(LIMIT) == list(range(6))


def test_an_idle_sender_notices_that_its_receiver_has_gone(link: Link, log: ReplayBuffer) -> None:
    sender, receiver = link.both(log)
    sender.send(header(0), batch(0), LIMIT)
    receiver.recv(LIMIT)
    assert not sender.gone()
    sender.serve()
    dies(receiver)
    assert sender.gone()
    successor = link.soon(lambda: ResumingReceiver(link.receiver, LIMIT, 0))
    with link.serving(sender.serve):
        assert steps(successor.result(LIMIT), 1) == [0]
    assert not sender.gone()


def test_a_receiver_that_needs_nothing_more_lets_a_new_sender_in(link: Link, log: ReplayBuffer) -> None:
    sender, receiver = link.both(log)
    for step in range(3):
        sender.send(header(step), batch(step), LIMIT)
        receiver.recv(LIMIT)
    receiver.serve()
    dies(sender)
    with link.serving(receiver.serve):
        successor = ReplayingSender(link.sender, link.log(), LIMIT)
        for step in range(3):
            successor.send(header(step), batch(step), LIMIT)  # more than the link holds: somebody takes them
        successor.await_room(LIMIT)


def test_a_receiver_that_dies_while_it_is_being_opened_is_waited_for(link: Link, log: ReplayBuffer) -> None:
    attempts = []

    def opening() -> Sender:
        attempts.append(1)
        if len(attempts) < 3:
            raise LinkClosed("stage 2 ended while the link was being opened")
        return link.sender()

    receiver = link.soon(link.receiver)
    sender = ReplayingSender(opening, log, LIMIT)
    sender.send(header(0), batch(0), LIMIT)
    assert steps(receiver.result(LIMIT), 1) == [0]
    assert len(attempts) == 3


def test_two_receivers_that_need_each_other_are_served_by_turns(two_links: list[Link]) -> None:
    # Two replicas of a stage come back; neither takes a batch before the other has got the one before.
    links = two_links
    pairs = [link.both(link.log()) for link in links]
    for step in range(6):
        for sender, receiver in pairs:
            sender.send(header(step), batch(step), LIMIT)
            receiver.recv(LIMIT)
    for _, receiver in pairs:
        dies(receiver)
    late = [link.soon(lambda link=link: ResumingReceiver(link.receiver, LIMIT, 0)) for link in links]
    sending = links[0].soon(lambda: [sender.send(header(6), batch(6), LIMIT) for sender, _ in pairs])
    sending.result(LIMIT)
    taken: list[int] = []

    def take() -> None:
        for _ in range(7):
            taken.extend(steps(receiver.result(LIMIT), 1)[0] for receiver in late)

    taking = links[0].soon(take)
    while not taking.done():
        for sender, _ in pairs:
            with suppress(LinkTimeout):
                sender.await_room(0.01)
    taking.result()
    assert taken == [step for step in range(7) for _ in late]


def test_a_receiver_that_had_room_when_it_died_is_let_in_while_another_has_none(two_links: list[Link]) -> None:
    pairs = [link.both(link.log()) for link in two_links]
    ways = [RowRange(0, number, 1, 2) for number in range(2)]
    whole = torch.zeros(2, 6)
    sender = slicing([(way, end) for way, (end, _) in zip(ways, pairs, strict=True)], TensorSpec((2, 6), whole.dtype))
    for step in range(2):
        sender.send(header(step), whole + step, LIMIT)
        pairs[0][1].recv(LIMIT)  # the other takes nothing: its link is full
    for _, receiver in pairs:
        dies(receiver)
    late = [link.soon(lambda link=link: ResumingReceiver(link.receiver, LIMIT, 0)) for link in two_links]
    sending = two_links[0].soon(lambda: [sender.send(header(step), whole + step, LIMIT) for step in (2, 3)])
    # Each of them takes a batch when both have got the one before.
    taken = [[steps(receiver.result(LIMIT), 1)[0] for receiver in late] for _ in range(4)]
    assert taken == [[step, step] for step in range(4)]
    sending.result(LIMIT)


def test_a_sender_that_died_after_its_part_is_let_in_while_another_part_is_awaited(two_links: list[Link]) -> None:
    pairs = [link.both(link.log()) for link in two_links]
    receiver = joined([end for _, end in pairs])
    for step in range(2):
        for sender, _ in pairs[: 2 - step]:
            sender.send(header(step), batch(step), LIMIT)
    taken = two_links[0].soon(lambda: [receiver.recv(LIMIT).tensor[0].tolist() for _ in range(3)])
    wait_until(lambda: (part := receiver._parts[0]) and part.header.step == 1, "the part of step 1 taken")
    for sender, _ in pairs:
        dies(sender)
    # Replicas compute together, so neither sends before both have connected.
    late = [link.soon(lambda link=link: ReplayingSender(link.sender, link.log(), LIMIT)) for link in two_links]
    successors = [sender.result(LIMIT) for sender in late]
    for step in range(3):
        for sender in successors:
            sender.send(header(step), batch(step), LIMIT)
    assert taken.result(LIMIT) == [[float(step)] * 6 for step in range(3)]


def test_senders_that_leave_in_good_order_are_not_waited_for(two_links: list[Link]) -> None:
    pairs = [link.both(link.log()) for link in two_links]
    receiver = joined([end for _, end in pairs])
    (first, _), (second, _) = pairs
    first.send(header(0), batch(0), LIMIT)
    first.close()
    asked: list[float] = []
    pairs[0][1]._open = lambda patience: asked.append(patience) or two_links[0].receiver(patience)
    taken = two_links[0].soon(lambda: receiver.recv(LIMIT))
    wait_until(lambda: asked, "a successor that is let in")
    second.send(header(0), batch(0), LIMIT)
    second.close()
    assert taken.result(LIMIT).tensor.shape == (2, 6)
    assert set(asked) == {ATTEND_SECONDS}


def test_who_does_not_come_back_is_given_up(tmp_path: Path, log: ReplayBuffer) -> None:
    link = Link(tmp_path)
    sender, receiver = link.both(log)
    sender._open = lambda: open_sender("queue", link.address, SPEC, 0.2)
    dies(receiver)
    with pytest.raises(LinkTimeout, match=r"no receiver within 0\.2 s"):
        sender.send(header(0), batch(0), LIMIT)
