"""How many connections are served at once; slow clients cannot keep others out."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any


class ConnectionLimit:
    """A bounded number of slots, taken without waiting."""

    def __init__(self, number: int) -> None:
        self._number, self._lock = number, threading.Lock()
        self.taken = 0

    def take(self) -> bool:
        """Take a slot; returns whether there was one."""
        with self._lock:
            free = self.taken < self._number
            self.taken += free
            return free

    def leave(self) -> None:
        """Give the slot back."""
        with self._lock:
            self.taken -= 1


class PendingRequests:
    """Connections whose request has not been received yet.

    A well-behaved client sends its request at once. So when there are too many, the connection that has been open
    longest is closed, and a new one never is.

    Args:
        number: the limit.
    """

    def __init__(self, number: int) -> None:
        self._number, self._lock = number, threading.Lock()
        self._connections: OrderedDict[int, socket.socket] = OrderedDict()

    @property
    def taken(self) -> int:
        """The number of connections."""
        return len(self._connections)

    def enter(self, connection: socket.socket) -> None:
        """Add a connection; the oldest is closed if there are too many."""
        with self._lock:
            while len(self._connections) >= self._number:
                _, oldest = self._connections.popitem(last=False)
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
            self._connections[id(connection)] = connection

    def leave(self, connection: socket.socket) -> bool:
        """Remove a connection whose request was received or that has gone; returns whether it was still open."""
        with self._lock:
            return self._connections.pop(id(connection), None) is not None


class DeadlineReader(io.RawIOBase):
    """Reads a connection until a deadline; after it every read raises `TimeoutError`.

    A socket's own timeout restarts with every read, so a client that sends single bytes would never exceed it.

    Args:
        connection: to read from.
        deadline: on the clock of `time.monotonic`.
    """

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """See `io.RawIOBase`."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long to come")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
