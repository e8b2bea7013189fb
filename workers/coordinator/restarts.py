"""Bringing single stages back: who is to come back from which step, how often already, and when to give up."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from workers.topology.members import TrainingProcess, of_unit


@dataclass
class Restarts:
    """Kept by the coordinator of a run with `restart: stage`.

    Args:
        members: every training process.
        limit: restarts in a row without a new snapshot (`max_restarts`).
        patience: seconds that a process may take to come back.
    """

    members: list[TrainingProcess]
    limit: int
    patience: float
    in_a_row: int = 0
    total: int = 0
    _snapshot: int = -1
    _attempts: dict[int, int] = field(default_factory=dict)
    _awaited: dict[str, float] = field(default_factory=dict)

    def exhausted(self, committed: int) -> bool:
        """Whether there have been as many as allowed since the snapshot after `committed` steps."""
        if committed != self._snapshot:
            self._snapshot, self.in_a_row = committed, 0
        return self.in_a_row >= self.limit

    def begin(self, unit: int) -> list[str]:
        """All processes of `unit` start over; their names."""
        self.in_a_row += 1
        self.total += 1
        self._attempts[unit] = self.attempt(unit) + 1
        names = [member.name for member in of_unit(self.members, unit)]
        self._awaited |= dict.fromkeys(names, time.monotonic() + self.patience)
        return names

    def attempt(self, unit: int) -> int:
        """Of the processes that are there now, from 0."""
        return self._attempts.get(unit, 0)

    @property
    def awaited(self) -> set[str]:
        """Who has not come back yet."""
        return set(self._awaited)

    def back(self, name: str) -> None:
        """This one has connected again."""
        del self._awaited[name]

    def overdue(self) -> str | None:
        """One that takes too long."""
        now = time.monotonic()
        return next((name for name, deadline in self._awaited.items() if now > deadline), None)
