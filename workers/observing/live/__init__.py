"""The live page of a run: its history, the server of the coordinator, and the page itself in `static/`."""

from workers.observing.live.history import History
from workers.observing.live.server import LiveServer

__all__ = ["History", "LiveServer"]
