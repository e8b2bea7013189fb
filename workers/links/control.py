"""The control channel: small messages between the coordinator and its stages, over one socket per stage.

It stands apart from the links, so that reports, acknowledgements and the order to stop get through
whatever the state of the data path. Messages are JSON objects of bounded size, never pickles; a peer that
has not got the run's key, or sends anything else, is dropped and logged while the others go on.
Nothing is encrypted: on several hosts use a network of your own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import socket
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, wait
from typing import Any, Self

from pipeline.errors import TrainingError
from workers.links import wire
from workers.links.base import seconds

MAX_MESSAGE_BYTES = 1024 * 1024
HELLO_SECONDS = 5.0
"""A connection that has not introduced itself within this is dropped."""

Message = dict[str, Any]
_log = logging.getLogger(__name__)


class ControlTimeout(TrainingError):
    """Somebody did not connect in time."""


class ControlClosed(TrainingError):
    """The coordinator has gone, refused this client, or the channel was closed."""


class ControlServer:
    """The coordinator's end; for one thread.

    Args:
        address: path of a Unix socket, or host and port (port 0 takes a free one; see `address`).
        key: authentication key of the run.

    Raises:
        UserError: the address cannot be listened on.
    """

    def __init__(self, address: wire.Address, key: bytes) -> None:
        self._key = key
        self._listener = wire.listen(address)
        self.address: wire.Address = wire.address_of(self._listener)
        """Where clients connect, with the real port."""
        self._clients: dict[str, Connection] = {}
        self._ended: list[str] = []
        self._arrivals: queue.Queue[tuple[str, Connection]] = queue.Queue(maxsize=1024)

    def accept(self, names: set[str], timeout: float) -> None:
        """Wait until a client of every one of `names` is connected; those that are already count.

        May be called again: after a timeout to go on waiting, or for a client that is to come back after
        `poll` has reported its end. Clients of other names are refused.

        Raises:
            ControlTimeout: names those that are missing.
        """
        deadline = time.monotonic() + timeout
        while missing := sorted(names - self._clients.keys()):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise ControlTimeout(
                    f"{', '.join(missing)} did not connect to the coordinator at {wire.describe(self.address)} "
                    f"within {seconds(timeout)}"
                )
            # Strangers are dealt with in threads of their own, so that a silent one delays nobody.
            with contextlib.suppress(TimeoutError):
                accepted = wire.accept(self._listener, min(remaining, 0.05))
                threading.Thread(target=self._introduce, args=(accepted,), daemon=True).start()
            self._admit(names)

    def send(self, name: str, message: Message) -> None:
        """Send to one client. If its connection has ended nothing happens here: `poll` reports that."""
        connection = self._clients.get(name)
        if connection is None:
            return
        try:
            connection.send_bytes(_encode(message))
        except OSError as error:
            # What it sent before may still be read, so the end is left to `poll`, unless it just fell silent.
            _log.warning("control: a message to %s was not delivered (%s)", name, error)
            if isinstance(error, BlockingIOError):
                self._drop(name, "it does not read what it is sent")

    def broadcast(self, message: Message) -> None:
        """Send to every client that is connected."""
        for name in list(self._clients):
            self.send(name, message)

    def poll(self, timeout: float) -> list[tuple[str, Message | None]]:
        """What has come: pairs of a client's name and its message, or None, once, when its connection ended.

        Waits until there is something, `timeout` seconds at most; then the list is empty.
        """
        news: list[tuple[str, Message | None]] = []
        if not self._ended:
            names = {id(connection): name for name, connection in self._clients.items()}
            if not names:
                time.sleep(max(timeout, 0.0))
            for connection in wait(list(self._clients.values()), max(timeout, 0.0)):
                news += self._read(names[id(connection)])
        ended, self._ended = self._ended, []
        return news + [(name, None) for name in ended]

    def close(self) -> None:
        """End every connection and remove the socket file."""
        self._listener.close()
        if isinstance(self.address, str):
            wire.remove_socket_file(self.address)
        while not self._arrivals.empty():
            self._arrivals.get_nowait()[1].close()
        for connection in self._clients.values():
            connection.close()
        self._clients.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _introduce(self, accepted: socket.socket) -> None:
        """Authenticate one connection and hear its name; runs in a thread, bounded by `HELLO_SECONDS`."""
        try:
            connection = wire.welcome(accepted, self._key, HELLO_SECONDS)
        except (AuthenticationError, EOFError, OSError) as error:
            _log.warning("control: refused a connection (%s)", error or "it ended")
            return
        try:
            if not connection.poll(HELLO_SECONDS):
                raise TrainingError("it did not say its name")
            name = _decode(connection.recv_bytes(MAX_MESSAGE_BYTES)).get("hello")
            self._arrivals.put_nowait((str(name), connection))
        except (EOFError, OSError, TrainingError, queue.Full) as error:
            _log.warning("control: refused a client (%s)", error or "it ended")
            connection.close()

    def _admit(self, names: set[str]) -> None:
        while not self._arrivals.empty():
            name, connection = self._arrivals.get_nowait()
            refusal = None
            if name in self._clients:
                refusal = f"'{name}' is already connected"
            elif name not in names:
                refusal = f"'{name}' is not expected; expected: {', '.join(sorted(names))}"
            with contextlib.suppress(OSError):
                connection.send_bytes(_encode({"welcome": refusal is None, "refusal": refusal}))
            if refusal is None:
                self._clients[name] = connection
            else:
                _log.warning("control: refused a client: %s", refusal)
                connection.close()

    def _read(self, name: str) -> list[tuple[str, Message | None]]:
        """The next message of one client, or nothing if its connection ended."""
        try:
            return [(name, _decode(self._clients[name].recv_bytes(MAX_MESSAGE_BYTES)))]
        except (EOFError, ConnectionResetError):
            self._drop(name, None)
        except (OSError, TrainingError) as error:
            self._drop(name, f"what it sent cannot be accepted ({error})")
        return []

    def _drop(self, name: str, reason: str | None) -> None:
        if reason is not None:
            _log.warning("control: dropped %s: %s", name, reason)
        self._clients.pop(name).close()
        self._ended.append(name)


class ControlClient:
    """A stage's end. `send` may be called from several threads, `poll` from one."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection, self.name = connection, name
        self._sending = threading.Lock()

    @classmethod
    def connect(cls, address: wire.Address, key: bytes, name: str, timeout: float) -> Self:
        """Connect to the coordinator, say our name and wait to be admitted.

        Raises:
            ControlTimeout: nobody answered in time.
            ControlClosed: the coordinator refused the key or the name; the message says why.
        """
        where = f"{name} cannot connect to the coordinator at {wire.describe(address)}"
        deadline = time.monotonic() + timeout
        try:
            connection = wire.connect(address, key, timeout)
        except AuthenticationError:
            raise ControlClosed(f"{where}: it refused the key. Both must belong to the same run") from None
        except TimeoutError as error:
            raise ControlTimeout(f"{where} within {seconds(timeout)}: {error}") from None
        client = cls(connection, name)
        try:
            client.send({"hello": name})
            answer = client.poll(max(deadline - time.monotonic(), 0.0))
            if answer is None:
                raise ControlTimeout(f"{where} within {seconds(timeout)}: it did not admit us")
            if answer.get("welcome") is not True:
                raise ControlClosed(f"{where}: {answer.get('refusal')}")
        except BaseException:
            client.close()
            raise
        return client

    def send(self, message: Message) -> None:
        """Send to the coordinator; raises `ControlClosed` when it has gone."""
        data = _encode(message)
        try:
            with self._sending:
                self._connection.send_bytes(data)
        except OSError as error:
            raise ControlClosed(f"{self.name}: the coordinator cannot be reached ({error})") from None

    def poll(self, timeout: float) -> Message | None:
        """The next message of the coordinator, or None after `timeout` seconds; raises `ControlClosed`."""
        try:
            if not self._connection.poll(max(timeout, 0.0)):
                return None
            return _decode(self._connection.recv_bytes(MAX_MESSAGE_BYTES))
        except (EOFError, OSError):
            raise ControlClosed(f"{self.name}: the coordinator has ended or closed the control channel") from None

    def close(self) -> None:
        """End the connection; calling it again does nothing."""
        with self._sending:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _encode(message: Message) -> bytes:
    data = json.dumps(message).encode()
    if len(data) > MAX_MESSAGE_BYTES:
        raise TrainingError(f"a control message of {len(data)} bytes is too long: at most {MAX_MESSAGE_BYTES} bytes")
    return data


def _decode(data: bytes) -> Message:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"a control message is not JSON ({error})") from None
    if not isinstance(message, dict):
        raise TrainingError(f"a control message is a {type(message).__name__}, not an object")
    return message
