"""Between two stages of different numbers of replicas: who sends which rows of the batch to whom, and both ends of it.

Replica i of R holds rows i * B / R to (i + 1) * B / R of the whole batch, at the sending stage as at the receiving one.
Where their rows overlap, a point link of its own carries the overlap. Axis 1 of `[V, B, ...]` counts the rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.errors import TrainingError
from workers.links.base import LinkMismatch, LinkTimeout, Receiver, Sender, seconds
from workers.links.messages import Header, Message, TensorSpec

LOOK_AROUND_SECONDS = 0.05
"""How long one point link is waited for before the others are looked at."""


@dataclass(frozen=True)
class RowRange:
    """What one replica of the sending stage has for one of the receiving stage.

    Args:
        sender, receiver: counted from 0.
        senders, receivers: how many there are.
    """

    sender: int
    receiver: int
    senders: int
    receivers: int

    def rows(self, batch: int) -> slice:
        """Rows of a whole batch of `batch`, which both stages must be able to divide evenly.

        Raises:
            LinkMismatch: they are not.
        """
        sent, wanted = part(self.sender, self.senders, batch), part(self.receiver, self.receivers, batch)
        return slice(max(sent.start, wanted.start), min(sent.stop, wanted.stop))

    def rows_of_sender(self, batch: int) -> slice:
        """The same rows, counted in the sender's part of the batch."""
        rows, start = self.rows(batch), part(self.sender, self.senders, batch).start
        return slice(rows.start - start, rows.stop - start)

    def rows_of_receiver(self, batch: int) -> slice:
        """The same rows, counted in the receiver's part of the batch."""
        rows, start = self.rows(batch), part(self.receiver, self.receivers, batch).start
        return slice(rows.start - start, rows.stop - start)

    def spec(self, whole: TensorSpec) -> TensorSpec:
        """What the point link carries at most, where a link between two single processes carries `whole`."""
        return TensorSpec((whole.shape[0], _count(self.rows(whole.shape[1])), *whole.shape[2:]), whole.dtype)


def shares(senders: int, receivers: int) -> list[RowRange]:
    """Every pair of replicas whose rows overlap, in the order of the rows.

    Both ends open their point links in this order; then nobody waits for somebody who waits in turn.
    """
    whole = senders * receivers
    every = [RowRange(i, j, senders, receivers) for i in range(senders) for j in range(receivers)]
    return [share for share in every if share.rows(whole).start < share.rows(whole).stop]


def part(number: int, of: int, batch: int) -> slice:
    """Rows of replica `number`, from 0, of `of`; raises `LinkMismatch` if the batch cannot be divided evenly."""
    if batch % of:
        raise LinkMismatch(f"a batch of {batch} cannot be shared by {of} replicas evenly")
    size = batch // of
    return slice(number * size, (number + 1) * size)


class ScatterSender(Sender):
    """Sends the rows of one replica to those that want them.

    Args:
        points: the shares of this replica in order, each with the open end of its point link.
        spec: of what this replica sends, all its rows.
    """

    def __init__(self, points: Sequence[tuple[RowRange, Sender]], spec: TensorSpec) -> None:
        ends = [end for _, end in points]
        receivers = " and ".join(end.address.receiver for end in ends)
        super().__init__(replace(ends[0].address, name=_joint_name(ends), receiver=receivers), spec)
        self._points = list(points)

    @property
    def keeps(self) -> bool:
        """See `Sender.keeps`; each receiver is sent a part of the same memory."""
        return any(end.keeps for _, end in self._points)

    def await_room(self, timeout: float) -> None:
        """See `Sender.await_room`; room for every receiver.

        A receiver that had room is asked again for as long as another has none: had both been restarted, each of them
        might wait for the other, and for its own link to be opened again.
        """

        def have_room(number: int, wait: float) -> None:
            self._points[number][1].await_room(wait)

        late = _of_each(len(self._points), have_room, timeout)
        if late:
            slow = " and ".join(self._points[number][1].address.receiver for number in late)
            full = f"{slow} took none of the {self.address.depth} messages that wait (link.depth)"
            raise LinkTimeout(f"{self.address}: no room within {seconds(timeout)}: {full}")

    def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
        """See `Sender.send`. Nothing is sent to anybody before there is room for all."""
        self._check_fits(tuple(tensor.shape), tensor.dtype)
        batch = tensor.shape[1] * self._points[0][0].senders
        slices = [tensor[:, share.rows_of_sender(batch)] for share, _ in self._points]
        self.await_room(timeout)
        for (_, end), rows in zip(self._points, slices, strict=True):
            end.send(header, rows, timeout)
        self.bytes_sent = sum(end.bytes_sent for _, end in self._points)

    def close(self) -> None:
        """See `Sender.close`."""
        for _, end in self._points:
            end.close()


class GatherReceiver(Receiver):
    """Makes the rows of one replica of what several send.

    Args:
        points: the shares of this replica in order, each with the open end of its point link.
        spec: of what this replica receives, all its rows.
        device: where the joined tensor is wanted.
    """

    def __init__(self, points: Sequence[tuple[RowRange, Receiver]], spec: TensorSpec, device: torch.device) -> None:
        ends = [end for _, end in points]
        senders = " and ".join(end.address.sender for end in ends)
        super().__init__(replace(ends[0].address, name=_joint_name(ends), sender=senders), spec)
        self._points = list(points)
        self._parts: list[Message | None] = [None] * len(points)
        self._joined = torch.empty(spec.shape, dtype=spec.dtype, device=device).flatten()

    def recv(self, timeout: float) -> Message:
        """See `Receiver.recv`. Parts that came before a timeout are kept for the next call.

        Raises:
            TrainingError: the parts are not of one step, or do not fit together.
        """

        def have_part(number: int, wait: float) -> None:
            end = self._points[number][1]
            if self._parts[number] is None:
                self._parts[number] = end.recv(wait)
            else:
                end.attend()

        late = _of_each(len(self._points), have_part, timeout)
        if late:
            silent = " and ".join(self._points[number][1].address.sender for number in late)
            raise LinkTimeout(f"{self.address}: {silent} sent nothing within {seconds(timeout)}")
        parts = [part for part in self._parts if part is not None]
        self._check_one_step(parts)
        joined = self._join(parts)
        self._parts = [None] * len(self._points)
        return Message(parts[0].header, joined)

    def waiting(self) -> int:
        """See `Receiver.waiting`; of messages whose parts all wait, about."""
        held = [part is not None for part in self._parts]
        return min(end.waiting() + here for (_, end), here in zip(self._points, held, strict=True))

    def close(self) -> None:
        """See `Receiver.close`."""
        for _, end in self._points:
            end.close()

    def _check_one_step(self, parts: list[Message]) -> None:
        if len({part.header.step for part in parts}) > 1:
            pairs = zip(parts, self._points, strict=True)
            came = [f"{part.header.step} from {end.address.sender}" for part, (_, end) in pairs]
            raise TrainingError(f"{self.address}: the parts of one batch are of different steps: {', '.join(came)}")

    def _join(self, parts: list[Message]) -> Tensor:
        first = self._points[0][0]
        rows = sum(part.tensor.shape[1] for part in parts)
        batch = rows * first.receivers
        sizes = [part.tensor.shape[1] for part in parts]
        if batch % first.senders or sizes != [_count(share.rows(batch)) for share, _ in self._points]:
            raise TrainingError(f"{self.address}: the parts of one batch have {sizes} rows, which do not fit together")
        shape = (parts[0].tensor.shape[0], rows, *parts[0].tensor.shape[2:])
        self._check_fits(shape, parts[0].tensor.dtype)
        joined = self._joined[: torch.Size(shape).numel()].view(shape)
        for (share, _), part in zip(self._points, parts, strict=True):
            joined[:, share.rows_of_receiver(batch)] = part.tensor
        return joined


def slicing(points: Sequence[tuple[RowRange, Sender]], spec: TensorSpec) -> Sender:
    """The sending end over all point links of one replica; with a single one, that itself."""
    return points[0][1] if len(points) == 1 else ScatterSender(points, spec)


def joining(points: Sequence[tuple[RowRange, Receiver]], spec: TensorSpec, device: torch.device) -> Receiver:
    """The receiving end over all point links of one replica; with a single one, that itself."""
    return points[0][1] if len(points) == 1 else GatherReceiver(points, spec, device)


def _of_each(count: int, attempt: Callable[[int, float], None], timeout: float) -> list[int]:
    """Have `attempt(number, seconds)` succeed for every number below `count` at once; those for which it timed out.

    While one is waited for, all others are asked too, also those for which it has succeeded: the end of any of them
    is noticed at once.
    """
    deadline = time.monotonic() + timeout
    missing = list(range(count))
    while missing:
        remaining = max(deadline - time.monotonic(), 0.0)
        awaited = missing[0]
        waits = [min(remaining, LOOK_AROUND_SECONDS) if number == awaited else 0.0 for number in range(count)]
        missing = [number for number, wait in enumerate(waits) if not _in_time(attempt, number, wait)]
        if remaining == 0:
            break
    return missing


def _in_time(attempt: Callable[[int, float], None], number: int, wait: float) -> bool:
    try:
        attempt(number, wait)
    except LinkTimeout:
        return False
    return True


def _count(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _joint_name(ends: Sequence[Sender] | Sequence[Receiver]) -> str:
    return " and ".join(end.address.name for end in ends)
