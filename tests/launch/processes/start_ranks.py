"""The ranks of a run on two hosts, each a thread with a host name of its own, which agree to start."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import HashStore

from launch.processes.start_check import Agreement, StartRefused, agree
from pipeline.errors import UserError
from tests.runs import TINY
from workers.topology.torchrun import RunGroup

RANKS = 4
LIMIT = 120.0
HOSTS = ("node1", "node1", "node2", "node2")


class Ranks:
    """The ranks of a run on two hosts, and what each of them is given."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.folder = HashStore(), folder
        (folder / "tiny.yaml").write_text(TINY)
        self.overrides: list[tuple[str, ...]] = [(f"run_dir={folder / 'runs' / 'run'}",)] * RANKS
        self.said: list[str] = []
        self.problems: dict[int, UserError] = {}
        self.patch = monkeypatch
        monkeypatch.setattr("platform.node", lambda: f"node{current_rank() // 2 + 1}")

    def agree(self, coming: Iterable[int] = range(RANKS)) -> list[Agreement | Exception]:
        """What becomes of every rank that comes."""
        found: list[Any] = [None] * RANKS

        def one(rank: int) -> None:
            group = RunGroup(rank, RANKS, rank % 2, 2, self.store, own_address="127.0.0.1")
            try:
                arguments = [str(self.folder / "tiny.yaml"), *self.overrides[rank]]
                found[rank] = agree(group, arguments, self.said.append, self.problems.get(rank))
            except Exception as error:
                found[rank] = error

        threads = [threading.Thread(target=one, args=(rank,), name=f"rank {rank}") for rank in coming]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        return found

    def again(self, *overrides: str) -> None:
        """Another start, with more on every command line."""
        self.store, self.said[:] = HashStore(), []
        self.overrides = [(*each, *overrides) for each in self.overrides]

    def refused(self) -> str:
        """The sentence that all of them end with."""
        found = self.agree()
        assert all(isinstance(each, StartRefused) for each in found), found
        assert len({str(each) for each in found}) == 1
        return str(found[0])


def current_rank() -> int:
    """Of the thread that asks."""
    _, _, number = threading.current_thread().name.partition("rank ")
    return int(number or -1)


def patched_for(ranks: Ranks, module: Any, name: str, rank: int, other: Callable[..., Any]) -> None:
    """Replace a function for one rank."""
    real = getattr(module, name)
    ranks.patch.setattr(module, name, lambda *given: (other if current_rank() == rank else real)(*given))
