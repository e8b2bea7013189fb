"""Accepts connections to the coordinator at any time of a run, and authenticates them with the key of the run.

Each connection is authenticated in a thread of its own, so that a silent client delays no other; the number of these
threads is bounded.
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
MAX_UNAUTHENTICATED = 128
"""Connections that may be authenticating at a time; further ones are closed at once."""
HELLO_SECONDS = 15.0
"""Limit for authenticating and for sending a name; on a busy machine each takes seconds."""
ACCEPT_SECONDS = 0.1

AcceptedClient = tuple[str, Connection]
"""Name of a client, as it states it, and its authenticated connection."""
_log = logging.getLogger(__name__)


class Acceptor:
    """A listening socket and a thread that accepts: authenticated clients go into a queue, refused ones into the log.

    Args:
        address: path of a Unix socket, or host and port (port 0 takes a free one; see `address`).
        key: authentication key of the run.
        name_of: returns the name in the first message of a client; raises `TrainingError` if there is none.

    Raises:
        UserError: the address cannot be listened on.
    """

    def __init__(self, address: wire.Address, key: bytes, name_of: Callable[[bytes], str]) -> None:
        self._key, self._name_of = key, name_of
        self._listener = wire.listen(address)
        self.address: wire.Address = wire.address_of(self._listener)
        """Address that clients connect to, with the actual port."""
        self._accepted: queue.Queue[AcceptedClient] = queue.Queue(maxsize=1024)
        self._places = threading.BoundedSemaphore(MAX_UNAUTHENTICATED)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="acceptor", daemon=True)
        self._thread.start()

    def next(self, timeout: float) -> AcceptedClient | None:
        """The client that was authenticated first; None if there is none within `timeout` seconds."""
        try:
            return self._accepted.get(timeout=timeout) if timeout > 0 else self._accepted.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop listening, remove the socket file, and close the connections of clients that were not taken."""
        self._closed.set()
        self._thread.join()
        self._listener.close()
        if isinstance(self.address, str):
            wire.remove_socket_file(self.address)
        while (client := self.next(0)) is not None:
            client[1].close()

    def _receive(self) -> None:
        """Body of the thread that accepts."""
        while not self._closed.is_set():
            try:
                accepted = wire.accept(self._listener, ACCEPT_SECONDS)
            except TimeoutError:
                continue
            except OSError as error:  # out of descriptors, or the peer has disconnected: the next attempt may succeed
                _log.warning("control: a connection could not be accepted (%s)", error)
                time.sleep(ACCEPT_SECONDS)
                continue
            if self._places.acquire(blocking=False):
                threading.Thread(target=self._authenticate, args=(accepted,), daemon=True).start()
            else:
                _log.warning("control: refused a connection: %d others have not authenticated yet", MAX_UNAUTHENTICATED)
                accepted.close()

    def _authenticate(self, accepted: socket.socket) -> None:
        """Authenticate one connection and read the name; runs in a thread, for at most twice `HELLO_SECONDS`."""
        try:
            connection = wire.authenticate(accepted, self._key, HELLO_SECONDS)
            try:
                if not connection.poll(HELLO_SECONDS):
                    raise TrainingError("it did not say its name")
                self._accepted.put_nowait((self._name_of(connection.recv_bytes(MAX_HELLO_BYTES)), connection))
            except BaseException:
                connection.close()
                raise
        except (AuthenticationError, EOFError, OSError, TrainingError, queue.Full) as error:
            _log.warning("control: refused a connection (%s)", str(error) or "it ended")
        finally:
            self._places.release()
