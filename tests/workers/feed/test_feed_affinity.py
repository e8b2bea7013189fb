"""Which core a feed worker is kept on, on machines that are described in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workers.feed.affinity import cores_for


def machine(folder: Path, nodes: Sequence[Sequence[tuple[int, ...]]]) -> Path:
    """`nodes` lists the cores of every NUMA node; those that are threads of one come as a tuple."""
    for number, cores in enumerate(nodes):
        for threads in cores:
            for thread in threads:
                place = folder / f"cpu{thread}"
                (place / "topology").mkdir(parents=True)
                (place / f"node{number}").mkdir()
                (place / "topology" / "thread_siblings_list").write_text(",".join(map(str, threads)) + "\n")
    return folder


def test_workers_fill_one_node_before_the_next(tmp_path: Path) -> None:
    cpus = machine(tmp_path, [[(0,), (1,), (2,), (3,)], [(4,), (5,), (6,), (7,)]])
    assert cores_for(3, 2, range(8), cpus) == [3, 2, 1]
    assert cores_for(6, 1, range(8), cpus) == [3, 2, 1, 0, 7, 6]


def test_the_node_with_the_most_cores_comes_first(tmp_path: Path) -> None:
    cpus = machine(tmp_path, [[(0,), (1,)], [(2,), (3,), (4,)]])
    assert cores_for(3, 1, range(5), cpus) == [4, 3, 2]
    assert cores_for(2, 0, {0, 1, 4}, cpus) == [1, 0]  # of those that may be used


def test_second_threads_of_a_core_come_last(tmp_path: Path) -> None:
    cpus = machine(tmp_path, [[(0, 4), (1, 5), (2, 6), (3, 7)]])
    assert cores_for(5, 2, range(8), cpus) == [3, 2, 1, 0, 7]


def test_nobody_is_kept_anywhere_where_cores_are_scarce(tmp_path: Path) -> None:
    assert cores_for(2, 2, range(4), tmp_path) == [None, None]
    assert cores_for(2, 1, range(4), tmp_path) == [3, 2]  # nothing is described
    assert cores_for(1, 1, set(), tmp_path) == [None]
    assert cores_for(0, 1, range(4), tmp_path) == []
