"""Chooses the core that each feed worker is pinned to, where there are spare cores.

A worker that moves between cores loses its caches; one that shares a core with a stage slows the whole pipeline down.
Where cores are scarce, the scheduler of the system decides.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")


def cores_for(workers: int, busy: int, allowed: Collection[int], cpus: Path = CPUS) -> list[int | None]:
    """A core for every worker; None for each unless there are more cores than `workers` and `busy` together.

    Workers share the memory of the ring, so they fill one NUMA node after another, starting with the node with most
    cores. Within a node, second hyper-threads come last. Properties that the system does not report count as equal.

    Args:
        workers: number of feed workers on this host.
        busy: number of threads that train on this host.
        allowed: the cores that this process may use.
        cpus: folder in which Linux describes the cores.
    """
    if len(allowed) <= workers + busy:
        return [None] * workers
    node = {core: _node(cpus / f"cpu{core}") for core in allowed}
    size = {number: list(node.values()).count(number) for number in node.values()}
    second = {core: _is_second_thread(cpus / f"cpu{core}", core) for core in allowed}
    # Highest numbers first: other programs tend to run on the lowest.
    order = sorted(allowed, key=lambda core: (-size[node[core]], node[core], second[core], -core))
    return list(order[:workers])


def _node(core: Path) -> int:
    found = (re.fullmatch(r"node(\d+)", path.name) for path in core.glob("node*"))
    return next((int(match[1]) for match in found if match), 0)


def _is_second_thread(core: Path, number: int) -> bool:
    """Whether the core is a hyper-thread of one with a lower number; the file holds `3,19` or `6-7`."""
    try:
        siblings = (core / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return False
    first = re.match(r"\d+", siblings)
    return first is not None and int(first[0]) != number
