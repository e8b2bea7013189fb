"""Connects the two ends of a framed link, authenticates them and compares their settings.

On one host they connect through a Unix socket. Where the address has none, the receiver listens on a free TCP port and
publishes it in the store of the link's address for as long as it waits. So a link that is opened again, after one of
the processes died, never finds an old port.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection

from workers.links import wire
from workers.links.base import LinkAddress, LinkClosed, LinkMismatch, LinkTimeout, seconds
from workers.links.handshake import MAX_HELLO_BYTES, compare_hellos
from workers.links.store import LinkStore

AUTHENTICATION_SECONDS = 2.0
"""A connection that does not authenticate within this is closed, so that the next one gets its turn."""

LOOK_AGAIN_SECONDS = 0.5
"""A published port is tried for this long before it is read again from the store."""

_log = logging.getLogger(__name__)


def connect_to_receiver(address: LinkAddress, timeout: float) -> Connection:
    """Connect as the sender. Raises `LinkMismatch` for a wrong key, `LinkTimeout` if the receiver does not listen."""
    try:
        if address.path:
            return wire.connect(address.path, address.key, timeout)
        return _connect_over_tcp(address, time.monotonic() + timeout)
    except AuthenticationError:
        raise LinkMismatch(
            f"{address}: {address.receiver} refused the key of {address.sender}. Both must belong to the same run"
        ) from None
    except TimeoutError as error:
        raise LinkTimeout(f"{address}: no receiver within {seconds(timeout)}: {error}") from None


def accept_sender(address: LinkAddress, timeout: float) -> Connection:
    """Listen as the receiver until a process with the run's key has connected. Raises `LinkTimeout`."""
    deadline = time.monotonic() + timeout
    refused = 0
    try:
        with (
            contextlib.closing(wire.listen(address.path or (address.host, 0))) as listener,
            _address_published(address, listener),
        ):
            while True:
                accepted = wire.accept(listener, deadline - time.monotonic())
                limit = min(AUTHENTICATION_SECONDS, max(deadline - time.monotonic(), 0.01))
                try:
                    return wire.authenticate(accepted, address.key, limit)
                except (AuthenticationError, EOFError, OSError) as error:
                    refused += 1
                    _log.warning("%s: refused a connection that is not %s's (%s)", address, address.sender, error)
    except TimeoutError:
        strangers = f"; connections refused for a wrong key: {refused}" if refused else ""
        raise LinkTimeout(f"{address}: {address.sender} did not connect within {seconds(timeout)}{strangers}") from None
    finally:
        if address.path:
            wire.remove_socket_file(address.path)


def exchange_hellos(
    connection: Connection, address: LinkAddress, ours: bytes, deadline: float, *, sending: bool
) -> bytes:
    """Exchange hellos and compare them; returns the other end's. Raises the three link errors."""
    peer = address.receiver if sending else address.sender
    try:
        connection.send_bytes(ours)
        if not connection.poll(max(deadline - time.monotonic(), 0.0)):
            raise LinkTimeout(f"{address}: {peer} connected and then fell silent while the link was being opened")
        theirs = connection.recv_bytes(MAX_HELLO_BYTES)
    except (EOFError, OSError):
        raise LinkClosed(f"{address}: {peer} ended while the link was being opened") from None
    compare_hellos(address, *((ours, theirs) if sending else (theirs, ours)))
    return theirs


@contextlib.contextmanager
def closed_on_error(connection: Connection) -> Iterator[None]:
    """Close `connection` if the block raises."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


@contextlib.contextmanager
def _address_published(address: LinkAddress, listener: socket.socket) -> Iterator[None]:
    """Publish the port of a TCP listener while the block runs; the path of a Unix socket is known."""
    if address.path:
        yield
        return
    store = LinkStore(address)
    store.publish_address(f"{address.host} {listener.getsockname()[1]}")
    try:
        yield
    finally:
        store.withdraw_address()


def _connect_over_tcp(address: LinkAddress, deadline: float) -> Connection:
    store = LinkStore(address)
    while True:
        host, port = store.wait_for_address(deadline).split()
        try:
            return wire.connect((host, int(port)), address.key, min(LOOK_AGAIN_SECONDS, deadline - time.monotonic()))
        except TimeoutError:
            if time.monotonic() >= deadline:
                raise
