"""Who may be served at once: so many and no more, and nobody who is slow keeps out who is not."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any


class ConnectionLimit:
    """A bounded number of places; nobody waits for one."""

    def __init__(self, number: int) -> None:
        self._number, self._lock = number, threading.Lock()
        self.taken = 0

    def take(self) -> bool:
        """Whether there was one."""
        with self._lock:
            free = self.taken < self._number
            self.taken += free
            return free

    def leave(self) -> None:
        """Give it back."""
        with self._lock:
            self.taken -= 1


class PendingRequests:
    """Connections whose request is still to be read.

    Who asks like a program has asked within a moment. So when there are too many, the one that has been at it for
    longest gives way, and a newcomer never does.

    Args:
        number: how many there may be.
    """

    def __init__(self, number: int) -> None:
        self._number, self._lock = number, threading.Lock()
        self._connections: OrderedDict[int, socket.socket] = OrderedDict()

    @property
    def taken(self) -> int:
        """How many there are."""
        return len(self._connections)

    def enter(self, connection: socket.socket) -> None:
        """One more; the oldest is cut off if there is no place for it."""
        with self._lock:
            while len(self._connections) >= self._number:
                _, oldest = self._connections.popitem(last=False)
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
            self._connections[id(connection)] = connection

    def leave(self, connection: socket.socket) -> bool:
        """Its request has been read, or it has gone; whether it had not been cut off."""
        with self._lock:
            return self._connections.pop(id(connection), None) is not None


class DeadlineReader(io.RawIOBase):
    """What a connection sends until a moment; after it every read raises `TimeoutError`.

    A timeout of the connection alone is one of each read, and a byte may come before every one of them.

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
