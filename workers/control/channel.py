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
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, wait
from typing import Any, Self

from pipeline.errors import TrainingError
from workers.control.acceptor import Acceptor
from workers.links import wire
from workers.links.base import seconds

MAX_MESSAGE_BYTES = 1024 * 1024
AGAIN_SECONDS = 5.0
"""For a coordinator that closed a connection before it admitted it, but is still there, to be reached again."""

Message = dict[str, Any]
_log = logging.getLogger(__name__)


class ControlTimeout(TrainingError):
    """Somebody did not connect in time."""


class ControlClosed(TrainingError):
    """The coordinator has gone, refused this client, or the channel was closed."""


class ControlServer:
    """The coordinator's end; for one thread. Who connects is received at any time (`Acceptor`).

    Args:
        address: path of a Unix socket, or host and port (port 0 takes a free one; see `address`).
        key: authentication key of the run.

    Raises:
        UserError: the address cannot be listened on.
    """

    def __init__(self, address: wire.Address, key: bytes) -> None:
        self._reception = Acceptor(address, key, _name_in)
        self.address = self._reception.address
        """Where clients connect, with the real port."""
        self._clients: dict[str, Connection] = {}
        self._early: dict[str, Connection] = {}
        """Clients that are known and have come back before `accept` asked for them."""
        self._known: set[str] = set()
        self._ended: list[str] = []
        self.dropped: dict[str, str] = {}
        """Why the connection of a client was ended from here, by its name, once that has happened."""

    def accept(self, names: set[str], timeout: float) -> None:
        """Wait until a client of every one of `names` is connected; those that are already count.

        May be called again: after a timeout to go on waiting, or for a client that is to come back after
        `poll` has reported its end. Clients of other names are refused, here and in `poll`.

        Raises:
            ControlTimeout: names those that are missing.
        """
        self._known |= names
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
            if arrival := self._reception.next(remaining):
                self._sort(*arrival)

    def connected(self) -> set[str]:
        """The clients whose process is still there; of others `poll` may have last words to tell."""
        return {name for name, connection in self._clients.items() if not wire.has_ended(connection)}

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
        while arrival := self._reception.next(0):
            self._sort(*arrival)
        if not self._ended:
            names = {id(connection): name for name, connection in self._clients.items()}
            if not names:
                time.sleep(max(timeout, 0.0))
            for connection in wait(list(self._clients.values()), max(timeout, 0.0)):
                news += self._read(names[id(connection)])
        ended, self._ended = self._ended, []
        return news + [(name, None) for name in ended]

    def dismiss(self, name: str) -> None:
        """End the connection of a client that another process is about to replace; `poll` reports that too."""
        if name in self._clients:
            self._drop(name, None)

    def close(self) -> None:
        """End every connection and remove the socket file."""
        self._reception.close()
        for connection in (*self._clients.values(), *self._early.values()):
            connection.close()
        self._clients.clear()
        self._early.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _sort(self, name: str, connection: Connection) -> None:
        """Keep a client that is or may be waited for; refuse any other."""
        refusal = None
        if any(name in group and not wire.has_ended(group[name]) for group in (self._clients, self._early)):
            refusal = f"{_shown(name)} is already connected"
        elif name not in self._known:
            refusal = f"{_shown(name)} is not expected; expected: {', '.join(sorted(self._known))}"
        if refusal is None:
            if name in self._early:
                self._early[name].close()
            self._early[name] = connection
            return
        _log.warning("control: refused a client: %s", refusal)
        with contextlib.suppress(OSError):
            connection.send_bytes(_encode({"welcome": False, "refusal": refusal}))
        connection.close()

    def _admit(self, names: set[str]) -> None:
        for name in names & self._early.keys() - self._clients.keys():
            connection = self._early.pop(name)
            if wire.has_ended(connection):
                connection.close()
                continue
            self._clients[name] = connection
            with contextlib.suppress(OSError):  # it has gone this moment: `poll` reports that
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
        deadline, closed = time.monotonic() + timeout, None
        while True:
            left = min(deadline - time.monotonic(), AGAIN_SECONDS) if closed else timeout
            try:
                client = cls(cls._reach(address, key, where, left), name)
            except ControlTimeout as error:
                raise closed or error from None
            try:
                client.send({"hello": name})
                answer = client.poll(max(deadline - time.monotonic(), 0.0))
            except BaseException as error:
                client.close()
                if not isinstance(error, ControlClosed):
                    raise
                closed = error  # a busy coordinator may have found the introduction too slow: try again
                continue
            if answer is not None and answer.get("welcome") is True:
                return client
            client.close()
            if answer is None:
                raise ControlTimeout(f"{where} within {seconds(timeout)}: it did not admit us")
            raise ControlClosed(f"{where}: {answer.get('refusal')}")

    @staticmethod
    def _reach(address: wire.Address, key: bytes, where: str, timeout: float) -> Connection:
        try:
            return wire.connect(address, key, timeout)
        except AuthenticationError:
            raise ControlClosed(f"{where}: it refused the key. Both must belong to the same run") from None
        except TimeoutError as error:
            raise ControlTimeout(f"{where} within {seconds(timeout)}: {error}") from None

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


def _name_in(hello: bytes) -> str:
    name = _decode(hello).get("hello")
    if not isinstance(name, str):
        raise TrainingError("it did not say its name")
    return name


def _shown(name: str) -> str:
    """A name that a stranger gave itself, as it may stand in a log."""
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
