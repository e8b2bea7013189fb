"""Which core each feed worker is kept on, where there are cores to spare.

A worker that is moved from core to core loses its caches; one that shares a core with a stage slows the whole
pipeline down. Both are the scheduler's business where cores are scarce, so nothing is done there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")


def cores_for(workers: int, busy: int, allowed: Collection[int], cpus: Path = CPUS) -> list[int | None]:
    """A core for every worker; None for each where there are not more cores than `workers` and `busy` together.

    Workers share the memory of the ring, so they fill one NUMA node after another, beginning with the one that has
    the most cores; in a node, second threads of a core come last. What the system does not tell counts as equal.

    Args:
        workers: feed workers of this host.
        busy: threads that train on this host.
        allowed: the cores that this process may use.
        cpus: where the system describes them.
    """
    if len(allowed) <= workers + busy:
        return [None] * workers
    node = {core: _node(cpus / f"cpu{core}") for core in allowed}
    size = {number: list(node.values()).count(number) for number in node.values()}
    second = {core: _is_second_thread(cpus / f"cpu{core}", core) for core in allowed}
    # From the end: what else runs on a host tends to be at the beginning.
    order = sorted(allowed, key=lambda core: (-size[node[core]], node[core], second[core], -core))
    return list(order[:workers])


def allowed_cores() -> set[int]:
    """The cores that this process may use; none where the system knows no affinity."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _node(core: Path) -> int:
    found = (re.fullmatch(r"node(\d+)", path.name) for path in core.glob("node*"))
    return next((int(match[1]) for match in found if match), 0)


def _is_second_thread(core: Path, number: int) -> bool:
    """Whether the core shares its circuits with one of a lower number, as in `3,19` or `6-7`."""
    try:
        siblings = (core / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return False
    first = re.match(r"\d+", siblings)
    return first is not None and int(first[0]) != number
