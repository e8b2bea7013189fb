"""Receives whoever connects to the coordinator, at any time of a run, and lets only those in who have its key.

Strangers get threads of their own, few at a time, so that a silent one delays nobody and many exhaust nothing.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection

from pipeline.errors import TrainingError
from workers.links import wire

MAX_HELLO_BYTES = 1024
MAX_STRANGERS = 128
"""Connections that may be introducing themselves at a time; more are closed at once."""
HELLO_SECONDS = 15.0
"""A connection that has not introduced itself within this is dropped; on a busy machine that takes seconds."""
ACCEPT_SECONDS = 0.1

AcceptedClient = tuple[str, Connection]
"""The name that a client gave itself, and its authenticated connection."""
_log = logging.getLogger(__name__)


class Acceptor:
    """A listening socket with a thread behind it; what it refuses is logged, who gets in waits in a queue.

    Args:
        address: path of a Unix socket, or host and port (port 0 takes a free one; see `address`).
        key: authentication key of the run.
        name_of: reads the first message of a client; raises `TrainingError` if that is not a name.

    Raises:
        UserError: the address cannot be listened on.
    """

    def __init__(self, address: wire.Address, key: bytes, name_of: Callable[[bytes], str]) -> None:
        self._key, self._name_of = key, name_of
        self._listener = wire.listen(address)
        self.address: wire.Address = wire.address_of(self._listener)
        """Where clients connect, with the real port."""
        self._arrivals: queue.Queue[AcceptedClient] = queue.Queue(maxsize=1024)
        self._places = threading.BoundedSemaphore(MAX_STRANGERS)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="reception", daemon=True)
        self._thread.start()

    def next(self, timeout: float) -> AcceptedClient | None:
        """Who has come, the first first; None if nobody does within `timeout` seconds."""
        try:
            return self._arrivals.get(timeout=timeout) if timeout > 0 else self._arrivals.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop listening, remove the socket file, and send away who still waits."""
        self._closed.set()
        self._thread.join()
        self._listener.close()
        if isinstance(self.address, str):
            wire.remove_socket_file(self.address)
        while (arrival := self.next(0)) is not None:
            arrival[1].close()

    def _receive(self) -> None:
        """Body of the thread that accepts."""
        while not self._closed.is_set():
            try:
                accepted = wire.accept(self._listener, ACCEPT_SECONDS)
            except TimeoutError:
                continue
            except OSError as error:  # out of descriptors, or the peer has left again: the next may fare better
                _log.warning("control: a connection could not be accepted (%s)", error)
                time.sleep(ACCEPT_SECONDS)
                continue
            if self._places.acquire(blocking=False):
                threading.Thread(target=self._introduce, args=(accepted,), daemon=True).start()
            else:
                _log.warning("control: refused a connection: %d others have yet to say who they are", MAX_STRANGERS)
                accepted.close()

    def _introduce(self, accepted: socket.socket) -> None:
        """Authenticate one connection and hear its name; runs in a thread, bounded by twice `HELLO_SECONDS`."""
        try:
            connection = wire.welcome(accepted, self._key, HELLO_SECONDS)
            try:
                if not connection.poll(HELLO_SECONDS):
                    raise TrainingError("it did not say its name")
                self._arrivals.put_nowait((self._name_of(connection.recv_bytes(MAX_HELLO_BYTES)), connection))
            except BaseException:
                connection.close()
                raise
        except (AuthenticationError, EOFError, OSError, TrainingError, queue.Full) as error:
            _log.warning("control: refused a connection (%s)", str(error) or "it ended")
        finally:
            self._places.release()
