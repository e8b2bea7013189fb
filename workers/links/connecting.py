"""How the two ends of a framed link find each other: the right processes, and agreed on what they will carry.

On one host they meet at a Unix socket. Where the address has none the receiver listens on a free TCP port and
publishes it in the store of the link's address, for as long as it waits: a link that is opened again, after one of
the processes died, never finds the port of the time before.
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

STRANGER_SECONDS = 2.0
"""A connection that does not authenticate within this is dropped, so that the right one gets its turn."""

LOOK_AGAIN_SECONDS = 0.5
"""A published port is tried for this long before the store is asked whether it still is the right one."""

_log = logging.getLogger(__name__)


def connect_to_receiver(address: LinkAddress, timeout: float) -> Connection:
    """The sender's way in. Raises `LinkMismatch` for a wrong key, `LinkTimeout` where nobody listens."""
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


def await_sender(address: LinkAddress, timeout: float) -> Connection:
    """The receiver's side: listen until a process with the run's key has connected. Raises `LinkTimeout`."""
    deadline = time.monotonic() + timeout
    refused = 0
    try:
        with contextlib.closing(wire.listen(address.path or (address.host, 0))) as listener, _found(address, listener):
            while True:
                accepted = wire.accept(listener, deadline - time.monotonic())
                limit = min(STRANGER_SECONDS, max(deadline - time.monotonic(), 0.01))
                try:
                    return wire.welcome(accepted, address.key, limit)
                except (AuthenticationError, EOFError, OSError) as error:
                    refused += 1
                    _log.warning("%s: refused a connection that is not %s's (%s)", address, address.sender, error)
    except TimeoutError:
        strangers = f"; connections refused for a wrong key: {refused}" if refused else ""
        raise LinkTimeout(f"{address}: {address.sender} did not connect within {seconds(timeout)}{strangers}") from None
    finally:
        if address.path:
            wire.remove_socket_file(address.path)


def agree(connection: Connection, address: LinkAddress, ours: bytes, deadline: float, *, sending: bool) -> bytes:
    """Exchange statements and compare them; the other end's. Raises the three link errors."""
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
def _found(address: LinkAddress, listener: socket.socket) -> Iterator[None]:
    """Let the sender find a TCP listener for as long as the block runs; a Unix socket is found by its path."""
    if address.path:
        yield
        return
    store = LinkStore(address)
    store.publish(f"{address.host} {listener.getsockname()[1]}")
    try:
        yield
    finally:
        store.withdraw()


def _connect_over_tcp(address: LinkAddress, deadline: float) -> Connection:
    store = LinkStore(address)
    while True:
        host, port = store.published(deadline).split()
        try:
            return wire.connect((host, int(port)), address.key, min(LOOK_AGAIN_SECONDS, deadline - time.monotonic()))
        except TimeoutError:
            if time.monotonic() >= deadline:
                raise
