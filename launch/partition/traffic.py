"""What the links into and out of a stage take of its processes, of the ways, and of the network cards of the hosts.

The senders of a boundary between two stages are the ranks before it, and the receivers those after it. Between
different numbers of replicas a batch is sent in pieces (`workers.links.resharding`). All of it is linear in the bytes
of the batch: numbers here are seconds for a byte, and seconds for a message of any size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from launch.partition.constraints import Constraints
from launch.partition.costs import Costs

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class BoundaryLoad:
    """What the links between two stages take, of every process and every host.

    Args:
        sending, receiving: seconds of each replica for a byte of the whole batch, `[replicas]`.
        sent, received: seconds of each replica for its messages, `[replicas]`.
        way: seconds for a byte of the batch, of the slowest link within a host.
        leaving, entering: seconds of the card of each host for a byte of the batch, `[hosts]`.
    """

    sending: Floats
    receiving: Floats
    sent: Floats
    received: Floats
    way: float
    leaving: Floats
    entering: Floats


@dataclass(frozen=True)
class StageLoad:
    """What the links on both sides of a stage take together, without what is less than another in every respect.

    Args:
        processes: of its replicas: seconds for a byte of what enters, for a byte of what leaves, and for messages.
        ways: of the links into it and of the cards: seconds for a byte of what enters and for one of what leaves.
    """

    processes: tuple[tuple[float, float, float], ...]
    ways: tuple[tuple[float, float], ...]

    def seconds(self, compute: Floats | float, entering: Floats | float, leaving: Floats | float) -> Floats:
        """Of a step, of the slowest process, way or card of the stage.

        Args:
            compute: seconds of a replica.
            entering, leaving: bytes of a whole batch; all three are broadcast to the shape of the result.
        """
        taken = [compute + (a * entering + b * leaving + messages) for a, b, messages in self.processes]
        taken += [a * entering + b * leaving for a, b in self.ways]
        slowest: Floats = np.asarray(taken[0])
        for other in taken[1:]:
            slowest = np.maximum(slowest, other)
        return slowest


class Traffic:
    """Loads of the boundaries and stages of all plans, each computed once.

    Args:
        costs: of the links.
        constraints: say which rank is on which host.
    """

    def __init__(self, costs: Costs, constraints: Constraints) -> None:
        self._costs, self._constraints = costs, constraints
        self.leaving = cache(self._outputs)
        self._boundary = cache(self._load_of_boundary)
        self._stage = cache(self._load_of_stage)

    def stage(self, start: int, before: int | None, replicas: int, after: int | None) -> StageLoad:
        """Of the stage on the ranks from `start`.

        Args:
            start: its first rank.
            before: replicas of the previous stage; 0 for one that is not known: then it is a lower bound of all; None
                where the batch comes from the coordinator.
            replicas: of this stage.
            after: of the next stage; 0 for one that is not known; None for none.
        """
        return self._stage(start if self._constraints.hosts > 1 else 0, before, replicas, after)

    def entering(self, stage: int) -> Floats:
        """Bytes of a batch as it enters a stage, counted from 1, by the number of its first unit."""
        before: Floats = np.roll(self.leaving(max(stage - 1, 1)), 1)
        before[0] = self._costs.input * self._costs.batch
        return before

    def _outputs(self, stage: int) -> Floats:
        """Bytes of a batch as it leaves a stage, counted from 1, by the number of its last unit; 0 after all units."""
        outputs = [unit.output for unit in self._costs.units_of(stage)[:-1]]
        return np.array([*outputs, 0], dtype=np.float64) * self._costs.batch

    def _load_of_stage(self, start: int, before: int | None, replicas: int, after: int | None) -> StageLoad:
        into = self._boundary(start, 1 if before is None else before, replicas)
        out = None if after is None else self._boundary(start + replicas, replicas, after)
        nothing, hosts = np.zeros(replicas), np.zeros(self._constraints.hosts)
        sides = (into.receiving, out.sending if out else nothing, into.received + (out.sent if out else nothing))
        ways = [(into.way, 0.0)]
        ways += zip(into.leaving.tolist(), (out.leaving if out else hosts).tolist(), strict=True)
        ways += zip(into.entering.tolist(), (out.entering if out else hosts).tolist(), strict=True)
        processes = zip(*(side.tolist() for side in sides), strict=True)
        slowest = [(entering, leaving) for entering, leaving in _largest(ways) if entering or leaving]
        return StageLoad(tuple((a, b, messages) for a, b, messages in _largest(processes)), tuple(slowest))

    def _load_of_boundary(self, start: int, senders: int, receivers: int) -> BoundaryLoad:
        """Between the ranks before `start` and those from there on; 0 replicas on a side are not known."""
        if not senders or not receivers:
            return self._lower_bound(start, senders, receivers)
        where, link = self._constraints, (self._costs.within, self._costs.across)
        share = shares(senders, receivers)
        ranks = range(start - senders, start), range(start, start + receivers)
        hosts = [np.array([where.host_of(rank) for rank in side]) for side in ranks]
        across = hosts[0][:, None] != hosts[1][None, :]

        def taken(name: str) -> Floats:
            chosen: Floats = np.where(across, getattr(link[1], name), getattr(link[0], name))
            return chosen

        messages = np.where(share > 0, taken("message"), 0.0)
        crossing = np.where(across, share, 0.0) / link[1].bandwidth
        return BoundaryLoad(
            sending=(share * taken("sending")).sum(axis=1),
            receiving=(share * taken("receiving")).sum(axis=0),
            sent=messages.sum(axis=1),
            received=messages.sum(axis=0),
            way=float(np.where(across, 0.0, share).max()) / link[0].bandwidth,
            leaving=self._by_host(hosts[0], crossing.sum(axis=1)),
            entering=self._by_host(hosts[1], crossing.sum(axis=0)),
        )

    def _lower_bound(self, start: int, senders: int, receivers: int) -> BoundaryLoad:
        """Of one side, whatever is on the other: what is between two hosts in any case, and one message for each."""
        where, link = self._constraints, (self._costs.within, self._costs.across)
        count = senders or receivers
        ranks = range(start - senders, start) if senders else range(start, start + receivers)
        hosts = np.array([where.host_of(rank) for rank in ranks])
        across = hosts != where.host_of(start if senders else start - 1)

        def taken(name: str) -> Floats:
            chosen: Floats = np.where(across, getattr(link[1], name), min(getattr(one, name) for one in link))
            return chosen

        crossing = self._by_host(hosts, np.where(across, 1 / count, 0.0) / link[1].bandwidth)
        nothing, none = np.zeros(count), np.zeros(where.hosts)
        return BoundaryLoad(
            sending=taken("sending") / count if senders else nothing,
            receiving=nothing if senders else taken("receiving") / count,
            sent=taken("message") if senders else nothing,
            received=nothing if senders else taken("message"),
            way=0.0,
            leaving=crossing if senders else none,
            entering=none if senders else crossing,
        )

    def _by_host(self, hosts: NDArray[np.int_], seconds: Floats) -> Floats:
        total: Floats = np.zeros(self._constraints.hosts)
        np.add.at(total, hosts, seconds)
        return total


def shares(senders: int, receivers: int) -> Floats:
    """The part of a batch that each sender has for each receiver, `[senders, receivers]`; see `overlaps` there."""
    i, j = np.arange(senders)[:, None], np.arange(receivers)[None, :]
    rows = np.minimum((i + 1) * receivers, (j + 1) * senders) - np.maximum(i * receivers, j * senders)
    part: Floats = np.maximum(rows, 0) / (senders * receivers)
    return part


def _largest(rows: Iterable[Sequence[float]]) -> list[tuple[float, ...]]:
    """Rows of which no other is as large in every column, in order."""
    each = sorted({tuple(row) for row in rows}, reverse=True)  # none is exceeded by one that comes after it
    largest: list[tuple[float, ...]] = []
    for row in each:
        if not any(all(a <= b for a, b in zip(row, other, strict=True)) for other in largest):
            largest.append(row)
    return largest
