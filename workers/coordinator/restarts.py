"""Bookkeeping of restarted stages: which processes are awaited, how often, and when to give up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field

from workers.control.failures import FailureReport
from workers.topology.processes import TrainingProcess, replicas_of


@dataclass
class Restarts:
    """Restarts of single stage groups (`restart: stage`).

    Args:
        processes: every training process.
        limit: most restarts in a row without a new snapshot (`max_restarts`).
        timeout: seconds that a restarted process may take to connect.
    """

    processes: list[TrainingProcess]
    limit: int
    timeout: float
    _: KW_ONLY
    in_a_row: int = 0
    total: int = 0
    _snapshot: int = -1
    _attempts: dict[int, int] = field(default_factory=dict)
    _awaited: dict[str, float] = field(default_factory=dict)

    def exhausted(self, committed: int) -> bool:
        """Whether `limit` restarts have happened since the snapshot after `committed` steps."""
        if committed != self._snapshot:
            self._snapshot, self.in_a_row = committed, 0
        return self.in_a_row >= self.limit

    def begin(self, stage_group: int) -> list[str]:
        """Count a restart of `stage_group`; returns the names of its processes, which are awaited from now on."""
        self.in_a_row += 1
        self.total += 1
        self._attempts[stage_group] = self.attempt(stage_group) + 1
        names = [process.name for process in replicas_of(self.processes, stage_group)]
        self._awaited |= dict.fromkeys(names, time.monotonic() + self.timeout)
        return names

    def attempt(self, stage_group: int) -> int:
        """Number of restarts of a stage group so far."""
        return self._attempts.get(stage_group, 0)

    @property
    def awaited(self) -> set[str]:
        """Names of restarted processes that have not connected yet."""
        return set(self._awaited)

    def forget(self, name: str) -> None:
        """A process is not awaited, or not any more: it has connected, or ended before it did."""
        self._awaited.pop(name, None)

    def overdue(self) -> str | None:
        """A restarted process that has not connected in time, if there is one."""
        now = time.monotonic()
        return next((name for name, deadline in self._awaited.items() if now > deadline), None)

    def in_words(self, stages: Sequence[int], failure: FailureReport, committed: int) -> Iterator[tuple[int, str]]:
        """A sentence for each stage of a group that has failed and comes back from a snapshot after so many steps."""
        count = f"restart {self.in_a_row} of {self.limit} without a new snapshot"
        yield stages[0], f"{failure.error()}. It comes back from step {committed} ({count})"
        for stage in stages[1:]:
            yield stage, f"stage {stage} comes back with stage {stages[0]}"
