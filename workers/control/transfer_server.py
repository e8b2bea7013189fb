"""The coordinator's end of transfers: stores the files of processes that do not see the run directory, and sends them.

Every connection is served by a thread of its own. A file is written beside its place and renamed when all of it has
arrived with the right digest, so one that is there is whole.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline.errors import OnwardError
from pipeline.ordinary_files import open_to_read
from workers.control.acceptor import Acceptor
from workers.control.channel import Message, name_in
from workers.control.transfer import (
    PIECE_BYTES,
    STUCK_SECONDS,
    Damaged,
    Disconnected,
    receive_file,
    receive_message,
    send_message,
    send_pieces,
    shut_down,
)
from workers.links import wire
from workers.run.closable import Closable
from workers.run.files import write_parts

MOST_BYTES = 1 << 40
"""Largest file that is stored."""
MAX_CONNECTIONS = 1024
POLL_SECONDS = 0.2
CLOSE_SECONDS = 5.0
_log = logging.getLogger(__name__)


class FileStore(Protocol):
    """Which files may be sent, and where they are."""

    @property
    def root(self) -> Path:
        """The folder that all of them are in, below which no link is followed."""
        ...

    def place(self, what: Message) -> Path:
        """Where to write a file, in a folder that exists; raises `OnwardError` or `OSError` if it may not be."""
        ...

    def find(self, what: Message) -> tuple[Message, Path] | None:
        """What is to be said of a file, and where it is; None if there is none. Raises as `place`."""
        ...


class TransferServer(Closable):
    """Serves `TransferClient`s until it is closed.

    Args:
        address: to listen on.
        key: authentication key of the run.
        store: of the files.
        most_bytes: of one file.

    Raises:
        UserError: the address cannot be listened on.
    """

    def __init__(self, address: wire.Address, key: bytes, store: FileStore, most_bytes: int = MOST_BYTES) -> None:
        self._store, self._most_bytes = store, most_bytes
        self._acceptor = Acceptor(address, key, name_in)
        self.address = self._acceptor.address
        """Address that clients connect to, with the actual port."""
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._writing: set[Path] = set()
        self._thread = threading.Thread(target=self._accept, name="transfers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections, and wait a moment for half-written files to be removed."""
        self._closed.set()
        self._thread.join()
        self._acceptor.close()
        with self._lock:
            left = list(self._connections.values())
            for connection in self._connections:
                shut_down(connection)
        for thread in left:
            thread.join(CLOSE_SECONDS)

    def _accept(self) -> None:
        while not self._closed.is_set():
            if (client := self._acceptor.next(POLL_SECONDS)) is None:
                continue
            name, connection = client
            thread = threading.Thread(target=self._serve, args=client, name=f"transfers of {name}", daemon=True)
            with self._lock:
                full = len(self._connections) >= MAX_CONNECTIONS
                if not full:
                    self._connections[connection] = thread
            if full:
                _log.warning("transfers: refused a connection: there are %d", MAX_CONNECTIONS)
                connection.close()
            else:
                thread.start()

    def _serve(self, name: str, connection: Connection) -> None:
        try:
            wire.limit_io(connection, STUCK_SECONDS)
            while not self._closed.is_set():
                if connection.poll(POLL_SECONDS):
                    self._answer(connection, receive_message(connection, 0.0))
        except Disconnected as error:
            _log.info("transfers of %s: %s", ascii(name)[:60], error)
        except (OSError, EOFError) as error:
            _log.info("transfers of %s: ended (%s)", ascii(name)[:60], error)
        finally:
            with self._lock:
                del self._connections[connection]
                connection.close()

    def _answer(self, connection: Connection, request: Message) -> None:
        put, get = request.get("put"), request.get("get")
        try:
            if isinstance(put, dict):
                answer = self._receive(connection, put, request.get("bytes"))
            elif isinstance(get, dict):
                return self._send(connection, get)
            else:
                raise Disconnected("it asked for nothing that is known")
        except OnwardError as error:
            answer = {"refused": str(error)}
        except OSError as error:
            answer = {"refused": f"'{error.filename or self._store.root}': {error.strerror or error}"}
        send_message(connection, answer)

    def _receive(self, connection: Connection, what: Message, size: object) -> Message:
        """Store a file; returns the answer."""
        if not isinstance(size, int) or not 0 <= size <= self._most_bytes:
            return {"refused": f"a file of {size} bytes is not accepted: at most {self._most_bytes}"}
        path = self._store.place(what)
        if size > shutil.disk_usage(self._store.root).free:
            return {"refused": f"'{self._store.root}' has no room for {size} bytes"}
        with self._lock:
            if path in self._writing:
                return {"busy": True}
            self._writing.add(path)
        try:
            send_message(connection, {"go": True})
            return self._write(receive_file(connection, size), path)
        finally:
            with self._lock:
                self._writing.discard(path)

    def _write(self, pieces: Iterator[bytes], path: Path) -> Message:
        try:
            write_parts(path, pieces, self._store.root)
        except Damaged:
            _log.warning("transfers: '%s' arrived damaged; it is sent again", path)
            return {"damaged": True}
        except OSError as error:
            try:
                for _ in pieces:  # the sender reads our answer when it has sent all
                    pass
            except Damaged:
                pass
            return {"refused": f"'{path}' could not be written ({error.strerror or error})"}
        return {"stored": True}

    def _send(self, connection: Connection, what: Message) -> None:
        found = self._store.find(what)
        if found is None:
            return send_message(connection, {"absent": True})
        about, path = found
        with open_to_read(path, self._store.root) as file:
            size = file.seek(0, 2)
            file.seek(0)
            send_message(connection, {"bytes": size, "about": about})
            digest = send_pieces(connection, _pieces_of(file, size))
        send_message(connection, {"sha256": digest})


def _pieces_of(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = file.read(min(PIECE_BYTES, size))
        if not piece:
            raise Disconnected("a file became shorter while it was sent")
        size -= len(piece)
        yield piece
