"""Who has not come to the start of a run on several hosts, and what a rank that ends leaves for those that wait."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence

from launch.processes.presence import Presence
from launch.processes.slurm import nodes_of_step
from pipeline.errors import OnwardError, first_line
from workers.control.validation import MalformedMessage
from workers.topology.torchrun import RanksMissing, RunGroup

SCATTERED = ("cyclic", "plane", "arbitrary")
"""Ways of Slurm to give ranks to nodes by which the ranks of a node do not follow each other."""


def why_it_ended(group: RunGroup, error: BaseException) -> str:
    """What a rank leaves for the others when it ends: its host, and why."""
    return f"{platform.node()} (rank {group.rank}): {sentence_of(error)}"


def sentence_of(error: BaseException) -> str:
    """An error for the users of other hosts; `launch.errors` has the details for those of this one."""
    if isinstance(error, OnwardError):
        return str(error)
    return first_line(error) if isinstance(error, Exception) else "it was interrupted"


def named(group: RunGroup, ranks: Sequence[int]) -> str:
    """Ranks that are waited for, with their hosts as far as those are known."""
    there = _presences(group)
    silent = [node for node in nodes_of_step(os.environ) if node not in {each.host.partition(".")[0] for each in there}]
    more = f" (nothing at all from {', '.join(silent)})" if silent else ""
    return ", ".join(f"rank {rank}{_on_host(rank, there)}" for rank in ranks) + more


def missing_in_words(group: RunGroup, error: RanksMissing) -> str:
    """Who has not come, and where to look."""
    they, them = ("it has", "its host") if len(error.ranks) == 1 else ("they have", "their hosts")
    return (
        f"nothing was heard of {named(group, error.ranks)} within {error.seconds:g} s, of {group.world_size} ranks. "
        f"See on {them} whether {they} failed to start"
    )


def _presences(group: RunGroup) -> list[Presence]:
    """Of those that have come; anybody may write to the store."""
    found = []
    for message in group.given("present"):
        try:
            found.append(Presence.from_message(message))
        except MalformedMessage:
            continue
    return found


def _on_host(rank: int, there: Iterable[Presence]) -> str:
    """The host of a rank, where it or one of its neighbours has named it."""
    scattered = any(word in os.environ.get("SLURM_DISTRIBUTION", "") for word in SCATTERED)
    for each in there:
        if each.rank == rank or (not scattered and each.first <= rank < each.first + each.here):
            return f" on {each.host}"
    return ""
