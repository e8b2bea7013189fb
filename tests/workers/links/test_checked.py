"""The checksum of a message: what it covers, and that nobody but the two ends sees it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipeline.stage.bit_flips import flip_bit
from workers.links.base import LinkAddress, LinkCorrupted, Receiver, Sender
from workers.links.checked import CheckedReceiver, CheckedSender, Checksums
from workers.links.messages import Header, Message, TensorSpec

HEADER = Header(3, 1, (0.5,), labels=b"\1\0\0\0\2\0\0\0")
ADDRESS = LinkAddress("link1", "stage 1", "stage 2", path="", key=b"", depth=2)
SPEC = TensorSpec((2, 5, 3), torch.float32)


class Wire(Sender, Receiver):
    """Both ends of a link that carries one message at a time."""

    def __init__(self) -> None:
        super().__init__(ADDRESS, SPEC)
        self.carried: Message | None = None

    def await_room(self, timeout: float) -> None:
        pass

    def send(self, header: Header, tensor: torch.Tensor, timeout: float) -> None:
        self.carried = Message(Header.from_bytes(header.to_bytes()), tensor.clone())

    def recv(self, timeout: float) -> Message:
        assert self.carried is not None
        return self.carried

    def waiting(self) -> int:
        return int(self.carried is not None)

    def close(self) -> None:
        pass

    def peer_gone(self) -> bool:
        return False


def values() -> torch.Tensor:
    return torch.randn(SPEC.shape, generator=torch.Generator().manual_seed(1))


def sent() -> Wire:
    wire = Wire()
    CheckedSender(wire).send(HEADER, values(), 1.0)
    return wire


def test_the_receiver_gets_what_was_sent_without_the_checksum() -> None:
    wire = sent()
    assert wire.carried is not None
    assert wire.carried.header.checksum
    message = CheckedReceiver(wire).recv(1.0)
    assert message.header == HEADER
    assert message.tensor.equal(values())
    wire.carried = Message(HEADER, values())
    assert CheckedReceiver(wire).recv(1.0).header == HEADER, "of a sender that does without"


def test_every_bit_counts_and_the_error_says_who_sent_it_where_to() -> None:
    for draw in range(50):
        wire = sent()
        assert wire.carried is not None
        flip_bit({"message": wire.carried.tensor}, draw)
        with pytest.raises(
            LinkCorrupted, match=r"^link1 .*: the message of step 3 has changed on its way from stage 1 on"
        ):
            CheckedReceiver(wire).recv(1.0)


@pytest.mark.parametrize(
    "changed",
    [{"labels": b"\1\0\0\0\3\0\0\0"}, {"step": 4}, {"noise_levels": (0.25,)}, {"last": True}, {"origin": "x"}],
)
def test_the_header_is_checked_too(changed: dict[str, object]) -> None:
    wire = sent()
    assert wire.carried is not None
    wire.carried = replace(wire.carried, header=replace(wire.carried.header, **changed))  # type: ignore[arg-type]
    with pytest.raises(LinkCorrupted):
        CheckedReceiver(wire).recv(1.0)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 4096 * 8 + 3])
def test_any_number_of_bytes_at_any_place_and_of_any_layout_has_one(count: int) -> None:
    held = torch.arange(count + 3, dtype=torch.int64).to(torch.uint8)
    found = {Checksums().of(HEADER, held[3:]), Checksums().of(HEADER, held[3:].clone())}
    assert len(found) == 1
    if count:
        other = held[3:].clone()
        other[-1] ^= 1
        assert Checksums().of(HEADER, other) not in found, "the last byte"
    square = torch.arange(64.0).view(8, 8)
    assert Checksums().of(HEADER, square.t()) == Checksums().of(HEADER, square.t().contiguous())
