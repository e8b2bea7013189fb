"""Whole files over a connection of their own: in pieces, with a digest at the end, sent again where something failed.

    client                               server
    {put: WHAT, bytes: N}         ->
                                  <-     {go: true}, {busy: true} or {refused: WHY}
    pieces of N bytes together    ->     writes them to a temporary file
    {sha256: DIGEST}              ->     renames that if the digest is right
                                  <-     {stored: true}, {damaged: true} or {refused: WHY}

    {get: WHAT}                   ->
                                  <-     {bytes: N, about: {...}}, {absent: true} or {refused: WHY}
                                  <-     pieces of N bytes together
                                  <-     {sha256: DIGEST}

No more than one piece of a file is in memory at either end. What WHAT may be is up to `transfer_server.FileStore`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO, TypeVar

from pipeline.errors import TrainingError
from workers.control.channel import Message
from workers.links import wire
from workers.run.closable import Closable
from workers.run.json_lines import parse_object

PIECE_BYTES = 1 << 22
MAX_MESSAGE_BYTES = 1 << 24
"""What goes along with a part of a snapshot, its counters, may be as large as a manifest."""
STUCK_SECONDS = 60.0
"""How long the other end may neither take nor give a byte."""
STORE_SECONDS = 300.0
"""How long the other end may take to flush a file to its disk."""
PATIENCE_SECONDS = 120.0
"""How long a client tries again."""
AGAIN_SECONDS = 0.5
TRIES = 3
"""How often a file may arrive damaged."""
Pieces = Iterable[bytes | memoryview]
Result = TypeVar("Result")


class TransferFailed(TrainingError):
    """A file was refused, arrived damaged again and again, or the other end has gone."""


class Disconnected(Exception):
    """The other end has gone, or does not speak this protocol; another attempt may succeed."""


class Damaged(Exception):
    """What arrived is not what was sent, by its digest; another attempt may succeed."""


@dataclass(frozen=True)
class Received:
    """A file that was fetched.

    Args:
        file: its content, in a temporary file without a name; the receiver closes it.
        about: what the other end says of it.
        sha256: of the content.
    """

    file: BinaryIO
    about: Message
    sha256: str


class TransferClient(Closable):
    """Sends files to a `TransferServer` and fetches them; for any thread, one file at a time.

    Args:
        address: of the server.
        key: authentication key of the run.
        name: of this process.
        patience: seconds in which a transfer that failed is tried again.
    """

    def __init__(self, address: wire.Address, key: bytes, name: str, patience: float = PATIENCE_SECONDS) -> None:
        self._address, self._key, self._name, self._patience = address, key, name, patience
        self._connection: Connection | None = None
        self._one_at_a_time = threading.Lock()
        self._closed = False

    def put(self, what: Message, size: int, pieces: Callable[[], Pieces]) -> str:
        """Send a file, and wait until it is stored; returns its digest.

        Args:
            what: names it.
            size: bytes of all pieces together.
            pieces: returns the content, from its beginning.

        Raises:
            TransferFailed: it is not stored there.
        """

        def attempt(connection: Connection) -> str:
            send_message(connection, {"put": what, "bytes": size})
            _accepted(receive_message(connection, STORE_SECONDS), "go")
            digest = send_pieces(connection, pieces())
            send_message(connection, {"sha256": digest})
            _accepted(receive_message(connection, STORE_SECONDS), "stored")
            return digest

        return self._until_done(attempt)

    def get(self, what: Message, folder: Path) -> Received | None:
        """Fetch a file into a temporary one in `folder`; None if there is none.

        Raises:
            TransferFailed: it cannot be fetched, or there is no room for it.
        """

        def attempt(connection: Connection) -> Received | None:
            send_message(connection, {"get": what})
            answer = receive_message(connection, STORE_SECONDS)
            if answer.get("absent") is True:
                return None
            size, about = answer.get("bytes"), answer.get("about")
            if not isinstance(size, int) or not isinstance(about, dict):
                _accepted(answer, "bytes")
                raise Disconnected("it sent an answer that cannot be read")
            if size > shutil.disk_usage(folder).free:
                raise TransferFailed(f"'{folder}' has no room for {size} bytes")
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # its receiver closes it
            try:
                for piece in receive_file(connection, size):
                    file.write(piece)
                file.flush()
            except BaseException:
                file.close()
                raise
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            return Received(file, about, digest)

        return self._until_done(attempt)

    def close(self) -> None:
        """End the connection; a transfer that is being made in another thread fails."""
        self._closed = True
        if (connection := self._connection) is not None:
            shut_down(connection)

    def _until_done(self, attempt: Callable[[Connection], Result]) -> Result:
        deadline, damaged = time.monotonic() + self._patience, 0
        with self._one_at_a_time:
            while True:
                try:
                    return attempt(self._connected(deadline))
                except (Disconnected, Damaged, OSError, EOFError) as error:
                    self._disconnect()
                    damaged += isinstance(error, Damaged)
                    if self._closed or damaged == TRIES or time.monotonic() + AGAIN_SECONDS > deadline:
                        where = wire.describe(self._address)
                        raise TransferFailed(f"the coordinator at {where}: {error or 'it has gone'}") from None
                    time.sleep(AGAIN_SECONDS)
                except BaseException:
                    self._disconnect()  # in the middle of a file
                    raise

    def _connected(self, deadline: float) -> Connection:
        if self._connection is None:
            try:
                connection = wire.connect(self._address, self._key, max(deadline - time.monotonic(), 1.0))
            except AuthenticationError:
                raise TransferFailed("the coordinator refused the key of this process") from None
            wire.limit_io(connection, STUCK_SECONDS)
            self._connection = connection
            send_message(connection, {"hello": self._name})
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _accepted(answer: Message, word: str) -> None:
    """Raises what the answer of the server stands for, if it is not `word`."""
    if word in answer:
        return
    if answer.get("damaged") is True:
        raise Damaged("what arrived there was not what was sent")
    if answer.get("busy") is True:
        raise Disconnected("an earlier attempt to send the same file has not ended there")
    if isinstance(why := answer.get("refused"), str):
        raise TransferFailed(why[:1000])
    raise Disconnected("it sent an answer that cannot be read")


def send_message(connection: Connection, message: Message) -> None:
    """Send a JSON object; raises `Disconnected`."""
    _send(connection, json.dumps(message).encode())


def receive_message(connection: Connection, timeout: float) -> Message:
    """The next JSON object; raises `Disconnected`, also after `timeout` seconds."""
    try:
        if not connection.poll(timeout):
            raise Disconnected(f"no answer within {timeout:g} s")
        message = parse_object(connection.recv_bytes(MAX_MESSAGE_BYTES))
    except (OSError, EOFError) as error:
        raise Disconnected(f"the connection ended ({error or type(error).__name__})") from None
    if message is None:
        raise Disconnected("it sent something else than a message")
    return message


def send_pieces(connection: Connection, content: Pieces) -> str:
    """Send content in pieces of at most `PIECE_BYTES`; returns its digest."""
    digest = hashlib.sha256()
    for part in content:
        view = memoryview(part).cast("B")
        for start in range(0, len(view), PIECE_BYTES):
            piece = view[start : start + PIECE_BYTES]
            digest.update(piece)
            _send(connection, piece)
    return digest.hexdigest()


def receive_file(connection: Connection, size: int) -> Iterator[bytes]:
    """The pieces of `size` bytes together; after the last, what was received is compared with the digest of the sender.

    Raises:
        Disconnected: the other end has gone, is silent, or sends more.
        Damaged: the digest is another.
    """
    digest, left = hashlib.sha256(), size
    while left:
        try:
            piece = connection.recv_bytes(PIECE_BYTES)
        except (OSError, EOFError) as error:
            raise Disconnected(f"it has gone, or is stuck ({error or type(error).__name__})") from None
        if not 0 < len(piece) <= left:
            raise Disconnected("it sent a piece that does not fit")
        left -= len(piece)
        digest.update(piece)
        yield piece
    if receive_message(connection, STUCK_SECONDS).get("sha256") != digest.hexdigest():
        raise Damaged("what arrived is not what was sent")


def shut_down(connection: Connection) -> None:
    """End a connection that another thread reads or writes; that thread closes it."""
    with contextlib.suppress(OSError), wire.as_socket(connection) as sock:
        sock.shutdown(socket.SHUT_RDWR)


def _send(connection: Connection, data: bytes | memoryview) -> None:
    try:
        connection.send_bytes(data)
    except OSError as error:
        raise Disconnected(f"it has gone, or is stuck ({error})") from None
