"""Links between stages with different numbers of replicas: each pair whose rows of the batch overlap has its own link.

Replica i of R has rows i * B / R to (i + 1) * B / R of a batch of B, at the sending stage and at the receiving one.
Rows are axis 1 of `[V, B, ...]`. For 2 senders, 3 receivers and B = 6:

    rows         0   1   2   3   4   5
    sender       0   0   0 | 1   1   1
    receiver     0   0 | 1   1 | 2   2
    links        0 -> 0 (rows 0, 1)   0 -> 1 (row 2)   1 -> 1 (row 3)   1 -> 2 (rows 4, 5)

Sender 0 is a `ScatterSender` over two links, receiver 1 a `GatherReceiver` over two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.errors import TrainingError
from workers.links.base import LinkMismatch, LinkTimeout, Meter, Receiver, Sender, seconds
from workers.links.messages import Header, Message, TensorSpec

LOOK_AROUND_SECONDS = 0.05
"""How long to wait for one link before all others are checked."""


@dataclass(frozen=True)
class RowRange:
    """The rows that one replica of the sending stage has for one replica of the receiving stage.

    Args:
        sender, receiver: number of the replica, from 0.
        senders, receivers: number of replicas.
    """

    sender: int
    receiver: int
    senders: int
    receivers: int

    def rows(self, batch: int) -> slice:
        """The rows within a batch of size `batch`.

        Raises:
            LinkMismatch: `batch` is not divisible by the number of senders and of receivers.
        """
        sent, wanted = (
            replica_rows(self.sender, self.senders, batch),
            replica_rows(self.receiver, self.receivers, batch),
        )
        return slice(max(sent.start, wanted.start), min(sent.stop, wanted.stop))

    def rows_of_sender(self, batch: int) -> slice:
        """The same rows, counted from the sender's first row."""
        rows, start = self.rows(batch), replica_rows(self.sender, self.senders, batch).start
        return slice(rows.start - start, rows.stop - start)

    def rows_of_receiver(self, batch: int) -> slice:
        """The same rows, counted from the receiver's first row."""
        rows, start = self.rows(batch), replica_rows(self.receiver, self.receivers, batch).start
        return slice(rows.start - start, rows.stop - start)

    def spec(self, whole: TensorSpec) -> TensorSpec:
        """Specification of the link of these rows; `whole` is that of the whole batch."""
        return TensorSpec((whole.shape[0], _count(self.rows(whole.shape[1])), *whole.shape[2:]), whole.dtype)


def overlaps(senders: int, receivers: int) -> list[RowRange]:
    """Every pair of replicas whose rows overlap, in the order of the rows.

    All processes open their links in this order, so that no cycle of processes waits for each other.
    """
    whole = senders * receivers
    every = [RowRange(i, j, senders, receivers) for i in range(senders) for j in range(receivers)]
    return [overlap for overlap in every if overlap.rows(whole).start < overlap.rows(whole).stop]


def replica_rows(number: int, of: int, batch: int) -> slice:
    """Rows of replica `number`, from 0, of `of`; raises `LinkMismatch` if `of` does not divide `batch`."""
    if batch % of:
        raise LinkMismatch(f"a batch of {batch} cannot be shared by {of} replicas evenly")
    size = batch // of
    return slice(number * size, (number + 1) * size)


class ScatterSender(Sender):
    """Sends the rows of one replica to the replicas of the next stage that need them.

    Args:
        links: row ranges of this replica in order, each with the open end of its link.
        spec: of all rows of this replica.
    """

    def __init__(self, links: Sequence[tuple[RowRange, Sender]], spec: TensorSpec) -> None:
        ends = [end for _, end in links]
        receivers = " and ".join(end.address.receiver for end in ends)
        super().__init__(replace(ends[0].address, name=_joint_name(ends), receiver=receivers), spec)
        self._links = list(links)

    def measure(self, meter: Meter) -> None:
        """See `Sender.measure`."""
        super().measure(meter)
        for _, end in self._links:
            end.measure(meter)

    @property
    def reads_later(self) -> bool:
        """See `Sender.reads_later`; true if it is for any of the links."""
        return any(end.reads_later for _, end in self._links)

    def await_room(self, timeout: float) -> None:
        """See `Sender.await_room`; waits for room in all links.

        Links that had room are checked again while another has none: if both receivers were restarted, each may wait
        for the other, and for its own link to be opened again.
        """

        def have_room(number: int, wait: float) -> None:
            self._links[number][1].await_room(wait)

        timed_out = _all_ready(len(self._links), have_room, timeout)
        if timed_out:
            receivers = " and ".join(self._links[number][1].address.receiver for number in timed_out)
            full = f"{receivers} took none of the {self.address.depth} messages that wait (link.depth)"
            raise LinkTimeout(f"{self.address}: no room within {seconds(timeout)}: {full}")

    def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
        """See `Sender.send`. Nothing is sent before there is room in all links."""
        self._check_fits(tuple(tensor.shape), tensor.dtype)
        batch = tensor.shape[1] * self._links[0][0].senders
        slices = [tensor[:, overlap.rows_of_sender(batch)] for overlap, _ in self._links]
        self.await_room(timeout)
        for (_, end), rows in zip(self._links, slices, strict=True):
            end.send(header, rows, timeout)
        self.bytes_sent = sum(end.bytes_sent for _, end in self._links)

    def close(self) -> None:
        """See `Sender.close`."""
        for _, end in self._links:
            end.close()


class GatherReceiver(Receiver):
    """Joins the rows of one replica, which several replicas of the previous stage send.

    Args:
        links: row ranges of this replica in order, each with the open end of its link.
        spec: of all rows of this replica.
        device: of the joined tensor.
    """

    def __init__(self, links: Sequence[tuple[RowRange, Receiver]], spec: TensorSpec, device: torch.device) -> None:
        ends = [end for _, end in links]
        senders = " and ".join(end.address.sender for end in ends)
        super().__init__(replace(ends[0].address, name=_joint_name(ends), sender=senders), spec)
        self._links = list(links)
        self._parts: list[Message | None] = [None] * len(links)
        self._joined = torch.empty(spec.shape, dtype=spec.dtype, device=device).flatten()

    def measure(self, meter: Meter) -> None:
        """See `Receiver.measure`."""
        super().measure(meter)
        for _, end in self._links:
            end.measure(meter)

    def recv(self, timeout: float) -> Message:
        """See `Receiver.recv`. Parts that arrived before a timeout are kept for the next call.

        Raises:
            TrainingError: the parts are not of one step, or do not fit together.
        """

        def have_part(number: int, wait: float) -> None:
            end = self._links[number][1]
            if self._parts[number] is None:
                self._parts[number] = end.recv(wait)
            else:
                end.accept_successor()

        timed_out = _all_ready(len(self._links), have_part, timeout)
        if timed_out:
            senders = " and ".join(self._links[number][1].address.sender for number in timed_out)
            raise LinkTimeout(f"{self.address}: {senders} sent nothing within {seconds(timeout)}")
        parts = [part for part in self._parts if part is not None]
        self._meter("waiting")
        self._check_one_step(parts)
        joined = self._join(parts)
        self._meter("copying")
        self._parts = [None] * len(self._links)
        return Message(parts[0].header, joined)

    def waiting(self) -> int:
        """See `Receiver.waiting`; counts messages whose parts have all arrived."""
        have_parts = [part is not None for part in self._parts]
        return min(end.waiting() + has_part for (_, end), has_part in zip(self._links, have_parts, strict=True))

    def close(self) -> None:
        """See `Receiver.close`."""
        for _, end in self._links:
            end.close()

    def _check_one_step(self, parts: list[Message]) -> None:
        if len({part.header.step for part in parts}) > 1:
            pairs = zip(parts, self._links, strict=True)
            came = [f"{part.header.step} from {end.address.sender}" for part, (_, end) in pairs]
            raise TrainingError(f"{self.address}: the parts of one batch are of different steps: {', '.join(came)}")

    def _join(self, parts: list[Message]) -> Tensor:
        first = self._links[0][0]
        rows = sum(part.tensor.shape[1] for part in parts)
        batch = rows * first.receivers
        sizes = [part.tensor.shape[1] for part in parts]
        if batch % first.senders or sizes != [_count(overlap.rows(batch)) for overlap, _ in self._links]:
            raise TrainingError(f"{self.address}: the parts of one batch have {sizes} rows, which do not fit together")
        shape = (parts[0].tensor.shape[0], rows, *parts[0].tensor.shape[2:])
        self._check_fits(shape, parts[0].tensor.dtype)
        joined = self._joined[: torch.Size(shape).numel()].view(shape)
        for (overlap, _), part in zip(self._links, parts, strict=True):
            joined[:, overlap.rows_of_receiver(batch)] = part.tensor
        return joined


def scatter_sender(links: Sequence[tuple[RowRange, Sender]], spec: TensorSpec) -> Sender:
    """One sender over all links of a replica; a single link is returned as it is."""
    return links[0][1] if len(links) == 1 else ScatterSender(links, spec)


def gather_receiver(links: Sequence[tuple[RowRange, Receiver]], spec: TensorSpec, device: torch.device) -> Receiver:
    """One receiver over all links of a replica; a single link is returned as it is."""
    return links[0][1] if len(links) == 1 else GatherReceiver(links, spec, device)


def _all_ready(count: int, attempt: Callable[[int, float], None], timeout: float) -> list[int]:
    """Call `attempt(number, seconds)` until one pass succeeds for all numbers; returns those that timed out.

    Only the first missing number is waited for, and all others are checked between these waits, also those that have
    succeeded before: so the end of any link is noticed at once.
    """
    deadline = time.monotonic() + timeout
    missing = list(range(count))
    while missing:
        remaining = max(deadline - time.monotonic(), 0.0)
        awaited = missing[0]
        waits = [min(remaining, LOOK_AROUND_SECONDS) if number == awaited else 0.0 for number in range(count)]
        missing = [number for number, wait in enumerate(waits) if not _succeeds(attempt, number, wait)]
        if remaining == 0:
            break
    return missing


def _succeeds(attempt: Callable[[int, float], None], number: int, wait: float) -> bool:
    try:
        attempt(number, wait)
    except LinkTimeout:
        return False
    return True


def _count(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _joint_name(ends: Sequence[Sender] | Sequence[Receiver]) -> str:
    return " and ".join(end.address.name for end in ends)
