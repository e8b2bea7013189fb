"""The arrows of a trace, which follow every batch through the pipeline; derived from the recorded slices.

    stage 1   forward --> send
                            |
    stage 2                 +--> forward        or forward --> forward, where one process trains both stages

Because arrows are derived, each has both ends, however a process ended.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from workers.observing.trace_part import Part, Slice
from workers.topology.processes import stage_name

LEAST = 1000
"""Nanoseconds: a viewer cannot attach an arrow to a slice of length 0."""
Ends = dict[tuple[int, Slice], list[tuple[str, int]]]
"""By part (its index in the trace) and slice: `s` where an arrow starts, `f` where it ends, and the arrow's id."""
_Sent = dict[tuple[int, int, int], list[tuple[int, int, Slice]]]
"""Sends by unit, replica and step: time, part and slice, in order."""


def arrows(parts: Sequence[Part], shift: Mapping[str, int]) -> Ends:
    """Both ends of every arrow.

    A batch may be sent again to a restarted stage: its arrow starts at the last send before the forward pass. No arrow
    goes back in time, even if the clocks of two hosts differ.

    Args:
        parts: of one trace.
        shift: by clock, what to add to its times.
    """
    pairs: list[tuple[tuple[int, Slice], tuple[int, Slice]]] = []
    sent: _Sent = {}
    for number, part in enumerate(parts):
        pairs += [((number, before), (number, after)) for before, after in _within(part)]
        for each in part.slices:
            if each.name == "send" and each.step is not None and each.duration >= LEAST:
                key = (part.header.unit, part.header.replica, each.step)
                sent.setdefault(key, []).append((each.start + shift[part.header.clock], number, each))
    for found in sent.values():
        found.sort(key=lambda item: item[0])
    for number, part in enumerate(parts):
        pairs += [(source, (number, each)) for source, each in _arrivals(part, parts, sent, shift)]
    ends: Ends = {}
    for arrow, (source, target) in enumerate(pairs, 1):
        ends.setdefault(source, []).append(("s", arrow))
        ends.setdefault(target, []).append(("f", arrow))
    return ends


def _within(part: Part) -> list[tuple[Slice, Slice]]:
    """Arrows from the last forward pass of the same step to a send, or to the forward pass of the next stage."""
    pairs = []
    forwards: dict[tuple[str, int], Slice] = {}
    after = {stage_name(stage): stage_name(stage - 1) for stage in part.header.stages}
    for each in part.slices:
        if each.step is None or each.duration < LEAST or each.name not in ("forward", "send"):
            continue
        source = each.track if each.name == "send" else after.get(each.track, "")
        if (before := forwards.get((source, each.step))) is not None:
            pairs.append((before, each))
        if each.name == "forward":
            forwards[each.track, each.step] = each
    return pairs


def _arrivals(
    part: Part, parts: Sequence[Part], sent: _Sent, shift: Mapping[str, int]
) -> list[tuple[tuple[int, Slice], Slice]]:
    """Arrows from the sends of the previous unit to the forward passes of the first stage of `part`."""
    head, found = part.header, []
    if not head.stages:
        return []
    before = {(p.header.replica, p.header.replicas) for p in parts if p.header.unit == head.unit - 1}
    senders = [r for r, all_of_them in before if share_rows(r - 1, all_of_them, head.replica - 1, head.replicas)]
    for each in part.slices:
        if each.name != "forward" or each.track != stage_name(head.stages[0]) or each.duration < LEAST:
            continue
        for sender in senders:
            times = sent.get((head.unit - 1, sender, -1 if each.step is None else each.step), [])
            latest = bisect_right(times, each.start + shift[head.clock], key=lambda item: item[0])
            if latest:
                found.append(((times[latest - 1][1], times[latest - 1][2]), each))
    return found


def share_rows(sender: int, senders: int, receiver: int, receivers: int) -> bool:
    """Whether two replicas, counted from 0, hold rows of the same images."""
    return sender * receivers < (receiver + 1) * senders and receiver * senders < (sender + 1) * receivers
