"""Authenticated connections between two processes, over a Unix socket or TCP, with a time limit on every call.

`multiprocessing.connection` has framing and mutual authentication with a shared key, but its blocking calls take no
timeout. So the sockets are created here, with a timeout for connecting and accepting, and the kernel limits every read
and write that has begun (`SO_RCVTIMEO`, `SO_SNDTIMEO`). Nothing is encrypted, and nothing is unpickled: only
`send_bytes` and `recv_bytes` are used.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

from pipeline.errors import UserError
from workers.links.listening import keep_open

Address = str | tuple[str, int]
"""Path of a Unix socket, or host and port."""
Waiting = Callable[[], object] | None
"""Called again and again while something is waited for; may raise."""

FRAME_SECONDS = 10.0
"""Limit for a read or write that has begun; frames are small."""

CUT_OFF = "its host, or this one, is off or cut off"
UNREACHABLE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
RETRY_SECONDS = 0.02
MAX_UNIX_PATH = 100
"""Bytes; the limit is 107 on Linux and lower elsewhere."""


def listen(address: Address) -> socket.socket:
    """Listen on `address`; port 0 takes a free one, which `address_of` returns.

    A socket file left behind by an earlier process is replaced.

    Raises:
        UserError: the address cannot be listened on.
    """
    family, where = _resolved(address)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if isinstance(address, str):
            remove_socket_file(address)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        if isinstance(address, str):
            os.chmod(address, 0o600)  # before anybody can connect; the folder should be private, too
        keep_open(listener)
        listener.listen(128)
    except OSError as error:
        listener.close()
        problem = error.strerror or error
        raise UserError(f"cannot listen on {describe(address)}: {problem}. Free it or name another") from None
    return listener


def address_of(listener: socket.socket) -> Address:
    """The address of a listener, with the actual port."""
    name = listener.getsockname()
    return name if isinstance(name, str) else (name[0], name[1])


def describe(address: Address) -> str:
    """An address as it is shown in messages."""
    if isinstance(address, str):
        return f"'{address}'"
    return f"{in_address(address[0])}:{address[1]}"


def in_address(host: str) -> str:
    """A host as it is written before `:PORT`."""
    return f"[{host}]" if ":" in host else host


def remove_socket_file(path: str) -> None:
    """Remove the file of a Unix socket if there is one; never any other kind of file."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


def accept(listener: socket.socket, timeout: float) -> socket.socket:
    """The next connection, not yet authenticated; raises `TimeoutError`."""
    listener.settimeout(max(timeout, 0.001))
    accepted, _ = listener.accept()
    return accepted


def authenticate(accepted: socket.socket, key: bytes, timeout: float) -> Connection:
    """Authenticate a peer that has connected, and this process to the peer.

    Raises:
        AuthenticationError: the peer has another key or uses another protocol.
        EOFError, OSError: the peer disconnected or stopped sending.
    """
    return _authenticated(_wrap(accepted, timeout), (deliver_challenge, answer_challenge), key, timeout)


def connect(address: Address, key: bytes, timeout: float, waiting: Waiting = None) -> Connection:
    """Connect to a listener, waiting for it to appear, and authenticate mutually.

    Args:
        address: of the listener.
        key: of both ends.
        timeout: seconds.
        waiting: called between two attempts; may raise.

    Raises:
        AuthenticationError: the keys differ; retrying would not help.
        TimeoutError: there was no answer in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return _connect_once(address, key, deadline - time.monotonic())
        except (OSError, EOFError) as error:  # not listening yet, or closed again
            if time.monotonic() + RETRY_SECONDS >= deadline:
                raise TimeoutError(f"nobody answered at {describe(address)} ({error or 'connection ended'})") from None
        if waiting is not None:
            waiting()
        time.sleep(RETRY_SECONDS)


def limit_io(connection: Connection, limit: float) -> None:
    """Make a read or write that blocks for `limit` seconds fail with `BlockingIOError`."""
    value = struct.pack("ll", int(limit), max(int(limit % 1 * 1e6), 1000))
    with as_socket(connection) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def limit_silence(connection: Connection, limit: float) -> None:
    """End a TCP connection when nothing that was sent is received for `limit` seconds; a kernel answers for that.

    Otherwise it tries for a quarter of an hour. Nothing is changed for a Unix socket, or where it does not offer this.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    with as_socket(connection) as sock:
        if option is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, option, max(int(limit * 1000), 1))


def how_it_ended(error: Exception, what: str) -> str:
    """What a failed read or write says of the peer, which was connected by `what`."""
    if isinstance(error, OSError) and error.errno in UNREACHABLE:
        return f"cannot be reached ({error.strerror}): {CUT_OFF}"
    return f"has ended or closed {what}"


def as_socket(connection: Connection) -> socket.socket:
    """The socket of a connection, under a duplicate descriptor that the caller closes."""
    return socket.socket(fileno=os.dup(connection.fileno()))


def _connect_once(address: Address, key: bytes, timeout: float) -> Connection:
    timeout = max(timeout, 0.01)
    family, where = _resolved(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return _authenticated(_wrap(sock, timeout), (answer_challenge, deliver_challenge), key, timeout)


def _authenticated(
    connection: Connection, steps: Sequence[Callable[[Connection, bytes], None]], key: bytes, limit: float
) -> Connection:
    """Mutual authentication; one end challenges first, the other answers first."""
    try:
        with _closed_after(connection, limit):
            for step in steps:
                step(connection, key)
    except BaseException as error:
        connection.close()
        if isinstance(error, AssertionError | ValueError):  # raised by the library if no challenge arrived
            raise AuthenticationError("the peer does not speak this protocol") from None
        raise
    limit_io(connection, FRAME_SECONDS)
    return connection


@contextlib.contextmanager
def _closed_after(connection: Connection, limit: float) -> Iterator[None]:
    """Shut the connection down if the block takes longer than `limit` seconds; then raises `TimeoutError`.

    The limits of the kernel restart with every byte, so a peer could hold us for minutes by sending single bytes.
    """
    ended = threading.Event()
    with as_socket(connection) as sock:

        def end() -> None:
            ended.set()
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
    if ended.is_set():  # perhaps just after the block was done
        raise TimeoutError(f"it took longer than {limit:g} s to prove that it has the key")


def ready(connections: Iterable[Connection], timeout: float) -> list[Connection]:
    """Those from which something can be read, or whose peer has disconnected, as soon as there are any.

    `multiprocessing.connection.wait` makes a selector every time, which takes longer than all else that a small message
    costs.

    Args:
        connections: open ones.
        timeout: seconds; none are returned when it is over.
    """
    poller, known = select.poll(), {connection.fileno(): connection for connection in connections}
    for descriptor in known:
        poller.register(descriptor, select.POLLIN)
    return [known[descriptor] for descriptor, _ in poller.poll(math.ceil(timeout * 1e3))]


def has_ended(connection: Connection) -> bool:
    """Whether the peer has disconnected, even if not all that it sent has been read."""
    poller = select.poll()
    poller.register(connection.fileno(), getattr(select, "POLLRDHUP", 0))  # POLLHUP is always reported
    return bool(poller.poll(0))


def _wrap(sock: socket.socket, timeout: float) -> Connection:
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setblocking(True)  # SO_RCVTIMEO and SO_SNDTIMEO apply to blocking sockets
    connection = Connection(sock.detach())
    limit_io(connection, timeout)
    return connection


def _resolved(address: Address) -> tuple[socket.AddressFamily, Any]:
    """The family of an address, and the address as sockets take it; host names may resolve to IPv4 or IPv6.

    Raises:
        UserError: the path is too long.
        OSError: the host name does not resolve.
    """
    if isinstance(address, str):
        if len(os.fsencode(address)) > MAX_UNIX_PATH:
            raise UserError(
                f"the path '{address}' is too long for a socket: at most {MAX_UNIX_PATH} bytes. "
                "Choose a shorter directory, for example one in /tmp"
            )
        return socket.AF_UNIX, address
    family, _, _, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    return family, where
