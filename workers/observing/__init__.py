"""What is seen of a run while it trains: metrics, alarms, the live page, traces, trackers; none of it changes a bit.

Everything here runs in the coordinator's process and is told the same four things (`observer`). It may fail; the run
goes on without it.
"""

from workers.observing.observer import Event, Observer, Observers, RunFacts

__all__ = ["Event", "Observer", "Observers", "RunFacts"]
