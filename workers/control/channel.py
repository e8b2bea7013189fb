"""The control channel: small messages between the coordinator and its stages, over one socket per stage.

It is separate from the links, so that reports and the order to stop arrive while the links are full or stuck.
Messages are JSON objects of bounded size, never pickles. A peer that lacks the run's key or sends anything else is
disconnected and logged, and the others continue. Nothing is encrypted: on several hosts use a private network.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from typing import Any, Self

from pipeline.errors import TrainingError
from workers.control.acceptor import Acceptor
from workers.links import wire
from workers.links.base import seconds
from workers.run.closable import Closable

MAX_MESSAGE_BYTES = 1024 * 1024
AGAIN_SECONDS = 5.0
"""How long a client tries again after the coordinator has closed its connection before admitting it."""

Message = dict[str, Any]
_log = logging.getLogger(__name__)


class ControlTimeout(TrainingError):
    """A client did not connect, or the coordinator did not answer, in time."""


class ControlClosed(TrainingError):
    """The coordinator has ended or refused this client, or the channel was closed."""


class ControlServer(Closable):
    """The coordinator's end, for one thread; `Acceptor` accepts connections at any time.

    Args:
        address: path of a Unix socket, or host and port (port 0 takes a free one; see `address`).
        key: authentication key of the run.

    Raises:
        UserError: the address cannot be listened on.
    """

    def __init__(self, address: wire.Address, key: bytes) -> None:
        self._acceptor = Acceptor(address, key, name_in)
        self.address = self._acceptor.address
        """Address that clients connect to, with the actual port."""
        self._clients: dict[str, Connection] = {}
        self._pending: dict[str, Connection] = {}
        """Clients that have connected and that `accept` has not admitted yet."""
        self._expected: set[str] = set()
        self._ended: list[str] = []
        self.dropped: dict[str, str] = {}
        """Why this end has closed the connection of a client, by its name."""

    def accept(self, names: set[str], timeout: float) -> None:
        """Wait until a client of each of `names` is connected; those that are connected already count.

        May be called again, to continue after a timeout or for a client that returns after `poll` has reported its
        end. Clients of other names are refused, here and in `poll`.

        Raises:
            ControlTimeout: names the clients that are missing.
        """
        self._expected |= names
        deadline = time.monotonic() + timeout
        while True:
            self._admit(names)
            missing = sorted(names - self.connected())
            if not missing:
                return
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise ControlTimeout(
                    f"{', '.join(missing)} did not connect to the coordinator at {wire.describe(self.address)} "
                    f"within {seconds(timeout)}"
                )
            if client := self._acceptor.next(remaining):
                self._keep_or_refuse(*client)

    def connected(self) -> set[str]:
        """The clients that are connected; `poll` may still return messages of others."""
        return {name for name, connection in self._clients.items() if not wire.has_ended(connection)}

    def send(self, name: str, message: Message) -> None:
        """Send to one client. Nothing happens if its connection has ended: `poll` reports that."""
        connection = self._clients.get(name)
        if connection is None:
            return
        try:
            connection.send_bytes(_encode(message))
        except OSError as error:
            # What it sent before may still be read, so `poll` reports its end, unless it merely stopped reading.
            _log.warning("control: a message to %s was not delivered (%s)", name, error)
            if isinstance(error, BlockingIOError):
                self._drop(name, "it does not read what it is sent")

    def broadcast(self, message: Message) -> None:
        """Send to every client that is connected."""
        for name in list(self._clients):
            self.send(name, message)

    def poll(self, timeout: float) -> list[tuple[str, Message | None]]:
        """Messages that have arrived, as pairs of client name and message; None, once, for a connection that ended.

        Waits up to `timeout` seconds for the first; the list is empty after that.
        """
        messages: list[tuple[str, Message | None]] = []
        while client := self._acceptor.next(0):
            self._keep_or_refuse(*client)
        if not self._ended:
            names = {id(connection): name for name, connection in self._clients.items()}
            if not names:
                time.sleep(max(timeout, 0.0))
            for connection in wire.ready(self._clients.values(), max(timeout, 0.0)):
                messages += self._read(names[id(connection)])
        ended, self._ended = self._ended, []
        return messages + [(name, None) for name in ended]

    def dismiss(self, name: str) -> None:
        """Close the connection of a client whose process is about to be replaced; `poll` reports that, too."""
        if name in self._clients:
            self._drop(name, None)

    def close(self) -> None:
        """Close every connection and remove the socket file."""
        self._acceptor.close()
        for connection in (*self._clients.values(), *self._pending.values()):
            connection.close()
        self._clients.clear()
        self._pending.clear()

    def _keep_or_refuse(self, name: str, connection: Connection) -> None:
        """Keep a client that is expected; refuse any other."""
        refusal = None
        if any(name in group and not wire.has_ended(group[name]) for group in (self._clients, self._pending)):
            refusal = f"{_shown(name)} is already connected"
        elif name not in self._expected:
            refusal = f"{_shown(name)} is not expected; expected: {', '.join(sorted(self._expected))}"
        if refusal is None:
            if name in self._pending:
                self._pending[name].close()
            self._pending[name] = connection
            return
        _log.warning("control: refused a client: %s", refusal)
        with contextlib.suppress(OSError):
            connection.send_bytes(_encode({"welcome": False, "refusal": refusal}))
        connection.close()

    def _admit(self, names: set[str]) -> None:
        for name in names & self._pending.keys() - self._clients.keys():
            connection = self._pending.pop(name)
            if wire.has_ended(connection):
                connection.close()
                continue
            self._clients[name] = connection
            with contextlib.suppress(OSError):  # it has just disconnected: `poll` reports that
                connection.send_bytes(_encode({"welcome": True, "refusal": None}))

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
            self.dropped[name] = reason
        self._clients.pop(name).close()
        self._ended.append(name)


class ControlClient(Closable):
    """The end of a training process. `send` may be called from several threads, `poll` from one."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection, self.name = connection, name
        self._sending = threading.Lock()

    @classmethod
    def connect(
        cls, address: wire.Address, key: bytes, name: str, timeout: float, waiting: wire.Waiting = None
    ) -> Self:
        """Connect to the coordinator, send `name` and wait to be admitted; `waiting` is called between two attempts.

        Raises:
            ControlTimeout: the coordinator did not answer in time.
            ControlClosed: the coordinator refused the key or the name; the message says why.
        """
        problem = f"{name} cannot connect to the coordinator at {wire.describe(address)}"
        deadline, closed = time.monotonic() + timeout, None
        while True:
            remaining = min(deadline - time.monotonic(), AGAIN_SECONDS) if closed else timeout
            try:
                client = cls(cls._connect(address, key, problem, remaining, waiting), name)
            except ControlTimeout as error:
                raise closed or error from None
            try:
                client.send({"hello": name})
                answer = client.poll(max(deadline - time.monotonic(), 0.0))
            except BaseException as error:
                client.close()
                if not isinstance(error, ControlClosed):
                    raise
                closed = error  # a busy coordinator may have timed out on our hello: try again
                continue
            if answer is not None and answer.get("welcome") is True:
                return client
            client.close()
            if answer is None:
                raise ControlTimeout(f"{problem} within {seconds(timeout)}: it did not admit us")
            raise ControlClosed(f"{problem}: {answer.get('refusal')}")

    @staticmethod
    def _connect(address: wire.Address, key: bytes, problem: str, timeout: float, waiting: wire.Waiting) -> Connection:
        try:
            return wire.connect(address, key, timeout, waiting)
        except AuthenticationError:
            raise ControlClosed(f"{problem}: it refused the key. Both must belong to the same run") from None
        except TimeoutError as error:
            raise ControlTimeout(f"{problem} within {seconds(timeout)}: {error}") from None

    def send(self, message: Message) -> None:
        """Send to the coordinator; raises `ControlClosed` when it has ended."""
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
        except (EOFError, OSError) as error:
            raise ControlClosed(
                f"{self.name}: the coordinator {wire.how_it_ended(error, 'the control channel')}"
            ) from None

    def end_after_silence(self, limit: float) -> None:
        """End the connection when the host of the coordinator has not answered for `limit` seconds."""
        wire.limit_silence(self._connection, limit)

    def close(self) -> None:
        """Close the connection; may be called again."""
        with self._sending:
            self._connection.close()


def name_in(hello: bytes) -> str:
    """The name in the first message of a client; raises `TrainingError` if there is none."""
    name = _decode(hello).get("hello")
    if not isinstance(name, str):
        raise TrainingError("it did not say its name")
    return name


def _shown(name: str) -> str:
    """A name that an unknown client sent, escaped and shortened for the log."""
    return ascii(name) if len(name) <= 40 else ascii(name[:40]) + "..."


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
