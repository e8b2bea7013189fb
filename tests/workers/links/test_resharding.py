"""Links between stages of different numbers of replicas: who gets which rows, and every promise of a link."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import TrainingError
from pipeline.stage.codecs import round_trip
from tests.waiting import LIMIT
from tests.workers.links.fan import Fan, batch, spec
from workers.links.base import LinkClosed, LinkMismatch, LinkTimeout
from workers.links.messages import Header, TensorSpec
from workers.links.resharding import LOOK_AROUND_SECONDS, GatherReceiver, ScatterSender, overlaps, replica_rows

NUMBERS = [(3, 2), (2, 3), (3, 1), (1, 3), (4, 2), (2, 4), (1, 1), (2, 2)]


@given(senders=st.integers(1, 8), receivers=st.integers(1, 8), times=st.integers(1, 4))
def test_every_row_has_exactly_one_way(senders: int, receivers: int, times: int) -> None:
    batch = senders * receivers * times
    arrived = torch.full((receivers, batch // receivers), -1)
    left = torch.zeros(senders, batch // senders, dtype=torch.int64)
    rows = torch.arange(batch)
    for overlap in overlaps(senders, receivers):
        mine = rows[replica_rows(overlap.sender, senders, batch)][overlap.rows_of_sender(batch)]
        assert len(mine) > 0
        assert mine.tolist() == rows[overlap.rows(batch)].tolist()
        target = arrived[overlap.receiver, overlap.rows_of_receiver(batch)]
        assert (target == -1).all()
        arrived[overlap.receiver, overlap.rows_of_receiver(batch)] = mine
        left[overlap.sender, overlap.rows_of_sender(batch)] += 1
        spec = overlap.spec(TensorSpec((2, batch, 5), torch.uint8))
        assert spec == TensorSpec((2, len(mine), 5), torch.uint8)
    assert arrived.flatten().tolist() == rows.tolist()
    assert (left == 1).all()


@given(senders=st.integers(1, 8), receivers=st.integers(1, 8))
def test_there_is_no_more_than_what_is_needed(senders: int, receivers: int) -> None:
    found = overlaps(senders, receivers)
    assert found == sorted(found, key=lambda overlap: (overlap.sender, overlap.receiver))
    bounds = {number * receivers for number in range(senders)} | {number * senders for number in range(receivers)}
    assert len(found) == len(bounds)  # one way for each stretch between two borders


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(LinkMismatch, match="a batch of 8 cannot be shared by 3 replicas evenly"):
        overlaps(2, 3)[0].rows(8)


@pytest.fixture
def fan(tmp_path: Path) -> Iterator[Callable[..., Fan]]:
    with contextlib.ExitStack() as stack:

        def make(*arguments: object, **settings: object) -> Fan:
            made = Fan(tmp_path, *arguments, **settings)
            stack.callback(made.close)
            return made

        yield make


def watched(end: Any, call: str) -> tuple[list[float], threading.Event]:
    """How long each point link is waited for from now on, and an event: all of them have been asked."""
    waits, asked = [], threading.Event()
    for _, point in end._links:
        original = getattr(point, call)

        def noted(wait: float, original: Callable[[float], Any] = original) -> Any:
            waits.append(wait)
            if len(waits) >= len(end._links):
                asked.set()
            return original(wait)

        setattr(point, call, noted)
    return waits, asked


def when(event: threading.Event, act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=lambda: event.wait(LIMIT) and act())
    thread.start()
    return thread


@pytest.mark.parametrize("kind", ["queue", "p2p"])
@pytest.mark.parametrize(("senders", "receivers"), NUMBERS)
def test_batches_arrive_whole_and_in_order(fan: Callable[..., Fan], kind: str, senders: int, receivers: int) -> None:
    dtype = torch.uint8 if senders == 1 else torch.float32  # the coordinator sends images
    link = fan(senders, receivers, spec(dtype), kind=kind)
    for step in range(10):
        link.send(step, batch(step, dtype=dtype))
        if step % 2:
            assert torch.equal(link.recv(step - 1), batch(step - 1, dtype=dtype))
            assert [end.waiting() for end in link.receivers] == [1] * receivers or kind == "p2p"
            assert torch.equal(link.recv(step), batch(step, dtype=dtype))
    assert sum(end.bytes_sent for end in link.senders) == 10 * spec(dtype).nbytes
    link.send(10, batch(0, dtype=dtype))
    for end in link.senders:
        end.close()
    assert torch.equal(link.recv(10), batch(0, dtype=dtype))  # an orderly close loses nothing
    for end in link.receivers:
        with pytest.raises(LinkClosed):
            end.recv(LIMIT)


@pytest.mark.parametrize("codec", ["bf16", "int8"])
def test_a_codec_gives_the_same_however_the_batch_is_divided(fan: Callable[..., Fan], codec: str) -> None:
    link, x = fan(2, 3, spec(), codec=codec), batch(0) / 7
    link.send(0, x)
    assert torch.equal(link.recv(0), round_trip(codec, x))


def test_smaller_batches_pass(fan: Callable[..., Fan]) -> None:
    link = fan(2, 3, spec())
    for rows in (6, 12, 6):
        link.send(rows, batch(rows, rows))
        assert torch.equal(link.recv(rows), batch(rows, rows))
    with pytest.raises(LinkMismatch, match="a batch of 8 cannot be shared by 3 replicas evenly"):
        link.send(0, batch(0, 8))


@pytest.mark.parametrize("kind", ["queue", "p2p"])
@pytest.mark.parametrize("codec", ["none", "bf16", "int8"])
def test_smaller_maps_pass(fan: Callable[..., Fan], kind: str, codec: str) -> None:
    """Of views that grow during training: every message in its own size, the largest again after the smallest."""
    link = fan(2, 3, TensorSpec((2, 12, 3, 5, 5), torch.float32), kind=kind, codec=codec)
    for step, side in enumerate((2, 3, 5, 1, 5)):
        x = torch.randn(2, 12, 3, side, side, generator=torch.Generator().manual_seed(step))
        link.send(step, x)
        assert torch.equal(link.recv(step), round_trip(codec, x))


@pytest.mark.parametrize("codec", ["none", "bf16"])
def test_packed_views_pass_and_may_be_fewer(fan: Callable[..., Fan], codec: str) -> None:
    link = fan(3, 2, TensorSpec((1, 12, 50), torch.float32), codec=codec)
    for step, total in enumerate((50, 7, 50)):
        x = torch.randn(1, 12, total, generator=torch.Generator().manual_seed(step))
        link.send(step, x)
        assert torch.equal(link.recv(step), round_trip(codec, x))


def test_a_smaller_map_whose_shape_int8_could_not_restore_is_refused(fan: Callable[..., Fan]) -> None:
    link = fan(1, 1, TensorSpec((2, 12, 3, 4, 4), torch.float32), codec="int8")
    for height, width in ((1, 4), (2, 3), (4, 1)):
        with pytest.raises(LinkMismatch, match="With this codec smaller maps must be square"):
            link.send(0, torch.zeros(2, 12, 3, height, width))
    link.send(0, torch.ones(2, 12, 3, 2, 2))
    assert link.recv(0).shape == (2, 12, 3, 2, 2)


def test_where_one_way_is_enough_it_is_the_end_itself(fan: Callable[..., Fan]) -> None:
    link = fan(2, 4, spec())
    assert all(isinstance(end, ScatterSender) for end in link.senders)
    assert not any(isinstance(end, GatherReceiver) for end in link.receivers)
    assert not any(isinstance(end, (ScatterSender, GatherReceiver)) for end in fan(2, 2, spec()).senders)


def test_a_part_that_came_before_a_timeout_is_not_lost(fan: Callable[..., Fan]) -> None:
    link = fan(3, 1, spec())
    link.send(0, batch(0), only=0)
    link.send(0, batch(0), only=2)
    link.send(1, batch(1), only=0)
    receiver = link.receivers[0]
    for _ in range(2):
        with pytest.raises(LinkTimeout, match=r"stage 1 replica 1 sent nothing within 0\.2 s"):
            receiver.recv(0.2)
    assert receiver.waiting() == 0
    link.send(0, batch(0), only=1)
    assert receiver.waiting() == 1
    assert torch.equal(link.recv(0), batch(0))
    link.send(1, batch(1), only=1)
    link.send(1, batch(1), only=2)
    assert torch.equal(link.recv(1), batch(1))


def test_nobody_gets_a_part_before_there_is_room_for_all(fan: Callable[..., Fan]) -> None:
    link = fan(1, 2, spec(), depth=1)
    sender, (first, second) = link.senders[0], link.receivers
    link.send(0, batch(0))
    first.recv(LIMIT)
    for _ in range(2):
        with pytest.raises(
            LinkTimeout, match=r"stage 2 replica 1 took none of the 1 messages that wait \(link\.depth\)"
        ):
            sender.send(Header(9, 0, ()), batch(9), 0.2)
    assert first.waiting() == 0
    assert second.recv(LIMIT).header.step == 0
    link.send(1, batch(1))
    assert torch.equal(link.recv(1), batch(1))
    link.send(2, batch(2))
    waits, asked = watched(sender, "await_room")
    taking = when(asked, lambda: link.recv(2))
    link.send(3, batch(3))  # goes on as soon as the last has taken his part
    taking.join(LIMIT)
    assert max(waits[:2]) == LOOK_AROUND_SECONDS
    assert torch.equal(link.recv(3), batch(3))


def test_parts_of_different_steps_are_never_joined(fan: Callable[..., Fan]) -> None:
    link = fan(2, 1, spec())
    link.send(4, batch(0), only=0)
    link.send(5, batch(0), only=1)
    with pytest.raises(TrainingError, match="4 from stage 1 replica 0, 5 from stage 1 replica 1"):
        link.receivers[0].recv(LIMIT)


def test_parts_that_do_not_fit_together_are_never_joined(fan: Callable[..., Fan]) -> None:
    link = fan(2, 1, spec())
    link.send(0, batch(0), only=0)
    link.send(0, batch(0, 6), only=1)
    with pytest.raises(TrainingError, match=r"have \[6, 3\] rows"):
        link.receivers[0].recv(LIMIT)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_the_end_of_any_sender_is_noticed_whoever_is_waited_for_and_named(fan: Callable[..., Fan], gone: int) -> None:
    link = fan(3, 1, spec())
    waits, asked = watched(link.receivers[0], "recv")
    closing = when(asked, link.senders[gone].close)
    with pytest.raises(LinkClosed, match=f"stage 1 replica {gone} closed its end after 0 messages"):
        link.receivers[0].recv(LIMIT)
    closing.join(LIMIT)
    assert max(waits) == LOOK_AROUND_SECONDS


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_the_end_of_any_receiver_is_noticed_whoever_is_waited_for_and_named(fan: Callable[..., Fan], gone: int) -> None:
    link = fan(1, 3, spec(), depth=1)
    link.send(0, batch(0))
    waits, asked = watched(link.senders[0], "await_room")
    closing = when(asked, link.receivers[gone].close)
    with pytest.raises(LinkClosed, match=f"stage 2 replica {gone} closed its end"):
        link.senders[0].send(Header(1, 0, ()), batch(1), LIMIT)
    closing.join(LIMIT)
    assert max(waits) == LOOK_AROUND_SECONDS


def test_what_was_joined_stays_until_the_next_message_is_taken(fan: Callable[..., Fan]) -> None:
    link = fan(2, 1, spec())
    link.send(0, batch(0))
    held = link.receivers[0].recv(LIMIT).tensor
    held += 1
    link.send(1, batch(1))
    link.send(2, batch(2))
    assert torch.equal(held, batch(0) + 1)
    assert torch.equal(link.recv(1), batch(1))
