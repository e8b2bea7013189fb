"""Processes that wait for time to pass, for counts to be reached and for messages to cross a network, event by event.

A process is a generator. It yields seconds, to let them pass, or a count and a number, to wait until the count has
reached it. Events of one moment happen in the order in which they were asked for, so that a simulation repeats itself.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count


@dataclass(eq=False)
class EventCount:
    """A number that grows, and the processes that wait until it is large enough."""

    value: int = 0
    waiting: list[tuple[int, Process]] = field(default_factory=list)


Process = Generator[float | tuple[EventCount, int], None, None]


class Simulation:
    """The clock, and what happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._number = count()

    def after(self, seconds: float, happens: Callable[[], object]) -> None:
        """Let something happen `seconds` from now."""
        heapq.heappush(self._events, (self.now + seconds, next(self._number), happens))

    def start(self, process: Process) -> None:
        """Let a process begin, or go on, now."""
        self.after(0.0, partial(self._resume, process))

    def advance(self, number: EventCount) -> None:
        """Add 1, and let those go on that have waited for it."""
        number.value += 1
        ready = [process for least, process in number.waiting if least <= number.value]
        number.waiting = [(least, process) for least, process in number.waiting if least > number.value]
        for process in ready:
            self.start(process)

    def run(self, until: Callable[[], bool]) -> None:
        """Until it is so."""
        while not until():
            self.now, _, happens = heapq.heappop(self._events)
            happens()

    def _resume(self, process: Process) -> None:
        for wanted in process:  # until it has to wait
            if isinstance(wanted, tuple):
                number, least = wanted
                if number.value < least:
                    number.waiting.append((least, process))
                    return
            elif wanted:
                self.after(wanted, partial(self._resume, process))
                return


@dataclass(eq=False)
class Connection:
    """Between two hosts, for messages one after the other.

    Args:
        source, target: of the messages: numbers of the hosts.
        left: bytes of each message that has not arrived; the first is under way.
    """

    source: int
    target: int
    left: deque[tuple[float, Callable[[], object]]] = field(default_factory=deque)

    @property
    def ends(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """The cards that it goes through, and in which direction."""
        return ("out", self.source), ("in", self.target)


class Cards:
    """The network cards of hosts, whose connections share each fairly in each direction, as those of TCP do in the long
    run (max-min fairness).

    Args:
        simulation: of which this is a part.
        capacities: bytes a second of every host's card, in each direction.
    """

    def __init__(self, simulation: Simulation, capacities: Mapping[int, float]) -> None:
        self._simulation, self._capacities = simulation, capacities
        self._active: list[Connection] = []
        self._since, self._change = 0.0, 0
        self._rates: dict[Connection, float] = {}

    def send(self, connection: Connection, size: float, arrived: Callable[[], object]) -> None:
        """Send `size` bytes behind those that the connection has been given before."""
        self._go_on()
        connection.left.append((size, arrived))
        if len(connection.left) == 1:
            self._active.append(connection)
            self._shared_anew()

    def _go_on(self) -> None:
        """Take off what has gone since the last change."""
        passed, self._since = self._simulation.now - self._since, self._simulation.now
        for connection in self._active:
            size, arrived = connection.left[0]
            connection.left[0] = size - self._rates[connection] * passed, arrived

    def _shared_anew(self) -> None:
        self._change, self._rates = self._change + 1, self._fair_rates()
        if self._active:
            first = min(self._active, key=self._seconds_left)
            arrives = partial(self._arrives, first, self._change)
            self._simulation.after(max(self._seconds_left(first), 0.0), arrives)

    def _seconds_left(self, connection: Connection) -> float:
        return connection.left[0][0] / self._rates[connection]

    def _arrives(self, connection: Connection, change: int) -> None:
        """The message that was under way is there, unless the card was shared by others since that was foreseen."""
        if change != self._change:
            return
        self._go_on()
        _, arrived = connection.left.popleft()
        if not connection.left:
            self._active.remove(connection)
        self._shared_anew()
        arrived()

    def _fair_rates(self) -> dict[Connection, float]:
        """The card with the least for each of its connections decides on those; what is left is for the others."""
        rates: dict[Connection, float] = {}
        users: dict[tuple[str, int], list[Connection]] = {}
        for connection in self._active:
            for end in connection.ends:
                users.setdefault(end, []).append(connection)
        left = {end: self._capacities[end[1]] for end in users}
        while users:
            tightest = min(users, key=lambda end: left[end] / len(users[end]))
            rate = left[tightest] / len(users[tightest])
            for connection in list(users[tightest]):
                rates[connection] = rate
                for end in connection.ends:
                    left[end] -= rate
                    users[end].remove(connection)
            users = {end: those for end, those in users.items() if those}
        return rates
