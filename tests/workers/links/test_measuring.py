"""An end around another, or around several, measures those too, also after they were opened again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.stage.codecs import build_codec
from tests.waiting import LIMIT
from workers.links.base import LinkAddress, LinkClosed, Part, Receiver, Sender
from workers.links.coded import CodedReceiver, CodedSender, wire_spec
from workers.links.messages import Header, Message, TensorSpec
from workers.links.replay import ReplayBuffer
from workers.links.replaying import ReplayingSender, ResumingReceiver
from workers.links.resharding import GatherReceiver, RowRange, ScatterSender

SPEC = TensorSpec((2, 4, 3), torch.float32)
ADDRESS = LinkAddress("link1", "stage 1", "stage 2", path="", key=b"", depth=2)


class Passing(Sender):
    """Measures as every link does; its receiver dies at the message `dies_at`."""

    def __init__(self, spec: TensorSpec = SPEC, dies_at: int | None = None) -> None:
        super().__init__(ADDRESS, spec)
        self.sent: list[int] = []
        self._dies_at = dies_at

    def await_room(self, timeout: float) -> None:
        pass

    def send(self, header: Header, tensor: torch.Tensor, timeout: float) -> None:
        if header.step == self._dies_at:
            raise LinkClosed("dead")
        self._meter("waiting")
        self.sent.append(header.step)
        self._meter("copying")

    def close(self) -> None:
        pass


class Given(Receiver):
    """Measures as every link does; its sender dies after these messages."""

    def __init__(self, messages: list[Message], spec: TensorSpec = SPEC) -> None:
        super().__init__(ADDRESS, spec)
        self._messages = messages

    def recv(self, timeout: float) -> Message:
        if not self._messages:
            raise LinkClosed("dead")
        self._meter("waiting")
        self._meter("copying")
        return self._messages.pop(0)

    def waiting(self) -> int:
        return 0

    def close(self) -> None:
        pass


def message(step: int, rows: int = 4) -> Message:
    return Message(Header(step, 0, ()), torch.zeros(2, rows, 3))


@pytest.fixture
def parts() -> list[Part]:
    return []


def send(sender: Sender, parts: list[Part], steps: range = range(1)) -> list[Part]:
    sender.measure(parts.append)
    for step in steps:
        sender.send(message(step).header, message(step).tensor, LIMIT)
    return parts


def recv(receiver: Receiver, parts: list[Part], count: int = 1) -> list[Part]:
    receiver.measure(parts.append)
    for _ in range(count):
        receiver.recv(LIMIT)
    return parts


def test_a_codec_computes(parts: list[Part]) -> None:
    codec = build_codec("bf16", SPEC.shape, SPEC.dtype)
    assert codec is not None
    assert send(CodedSender(Passing(wire_spec(codec)), codec), parts) == ["computing", "waiting", "copying"]
    parts.clear()
    coded = Message(Header(0, 0, ()), codec.encode(message(0).tensor))
    assert recv(CodedReceiver(Given([coded], wire_spec(codec)), codec), parts) == ["waiting", "copying", "computing"]


def test_what_is_sent_is_kept_for_a_restart_which_copies_and_a_restart_is_waited_for(
    parts: list[Part], tmp_path: Path
) -> None:
    ends = [Passing(dies_at=1), Passing()]
    opening: Callable[[], Sender] = iter(ends).__next__
    sender = ReplayingSender(opening, ReplayBuffer(tmp_path), LIMIT)
    assert send(sender, parts, range(2)) == [
        *("copying", "waiting", "copying"),
        "copying",
        *("waiting", "copying", "waiting", "copying"),
    ]
    assert [end.sent for end in ends] == [[0], [0, 1]]


def test_a_restarted_sender_is_measured_as_the_first(parts: list[Part]) -> None:
    ends = iter([Given([message(0)]), Given([message(0), message(1)])])
    receiver = ResumingReceiver(lambda timeout: next(ends), LIMIT, 0)
    assert recv(receiver, parts, 2) == ["waiting", "copying"] * 3, "and what was received before is dropped"


def test_all_links_of_a_replica_are_measured_and_joining_rows_copies(parts: list[Part]) -> None:
    ways = [RowRange(0, receiver, 1, 2) for receiver in range(2)]
    assert send(ScatterSender([(way, Passing()) for way in ways], SPEC), parts) == ["waiting", "copying"] * 2
    parts.clear()
    ways = [RowRange(sender, 0, 2, 1) for sender in range(2)]
    gathering = GatherReceiver([(way, Given([message(0, 2)])) for way in ways], SPEC, torch.device("cpu"))
    assert recv(gathering, parts) == ["waiting", "copying"] * 3
