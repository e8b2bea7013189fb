"""What `--hosts` names, and which ranks run on which of them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import UserError

HERE = "localhost"
"""The host on which the command runs; nothing is asked of ssh."""
ENTRY = re.compile(r"([^\s:\[\]]+@)?(?:([^\s:\[\]]+)|\[([^\s\[\]]+)\])(?::([1-9]\d{0,5}))?")
"""User, name or address in IPv6, slots."""
USAGE = "Give names as ssh knows them, for example --hosts node1,node2 or --hosts user@node1:4,node2:2"


@dataclass(frozen=True)
class HostEntry:
    """One host of the list.

    Args:
        target: as ssh is given it, `name` or `user@name`.
        slots: how many processes it takes at most; None if the user has not said.
    """

    target: str
    slots: int | None = None

    @property
    def is_here(self) -> bool:
        """Whether it is the host on which the command runs."""
        return self.target == HERE


def parse_hosts(text: str) -> list[HostEntry]:
    """Read `a,user@b:4,[fd00::1]:2`.

    Raises:
        UserError: naming the entry that is none.
    """
    entries: list[HostEntry] = []
    for part in (part.strip() for part in text.split(",")):
        entry = HostEntry(part) if _is_ipv6(part) else _entry(part)
        if entry is None:
            raise UserError(f"--hosts: '{part}' is not a host. {USAGE}")
        if entry.target in (other.target for other in entries):
            again = f"Give it once, with its processes: {entry.target}:2"
            raise UserError(f"--hosts: '{entry.target}' is named twice. {again}")
        entries.append(entry)
    return entries


def _entry(part: str) -> HostEntry | None:
    found = ENTRY.fullmatch(part)
    if found is None or part.startswith("-") or (found[3] and not _is_ipv6(found[3])):
        return None
    return HostEntry((found[1] or "") + (found[2] or found[3]), int(found[4]) if found[4] else None)


def _is_ipv6(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def distribute(entries: Sequence[HostEntry], gpus: Sequence[int] | None, processes: int) -> list[int]:
    """How many ranks each host gets: evenly, but no more than its slots; its GPUs where the user has named none.

    Where there are more processes than GPUs, hosts without slots of the user's own share them evenly, too. Ranks are
    given out in order, so that neighbouring stages are on one host.

    Args:
        entries: the hosts.
        gpus: of each; None if none are used.
        processes: of the run.

    Raises:
        UserError: the slots do not suffice, or a host is left without a process.
    """
    if processes < len(entries):
        left = ", ".join(entry.target for entry in entries[processes:])
        raise UserError(
            f"--hosts: this run has {processes} processes, fewer than the {len(entries)} hosts. Leave out {left}, or "
            "give more model.cuts, processes or replicas"
        )
    counts = [0] * len(entries)
    wished = [entry.slots for entry in entries]
    if gpus is not None and any(gpus):
        wished = [entry.slots or max(number, 1) for entry, number in zip(entries, gpus, strict=True)]
    for limits in (wished, [entry.slots for entry in entries]):
        while sum(counts) < processes:
            room = [i for i, limit in enumerate(limits) if limit is None or counts[i] < limit]
            if not room:
                break
            counts[min(room, key=counts.__getitem__)] += 1
    if sum(counts) < processes:
        raise UserError(
            f"--hosts: this run has {processes} processes, and the hosts have {sum(counts)} slots. Give more hosts, or "
            "more slots (HOST:NUMBER)"
        )
    return counts
