"""Ports that libraries open and never close, closed to newcomers once those that they were opened for have come.

Gloo listens as long as a process group lives, asks nobody for a key, keeps whatever connects, and ends the process
when that has used up its open files. It needs its port only while the group forms. The socket cannot be closed under
it; but a socket may carry a filter, and one that lets nothing pass has the kernel drop whatever else would connect.
Connections that have been made do not pass that socket any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator

_ATTACH_FILTER = 26
"""SO_ATTACH_FILTER of Linux."""
_DROP_EVERYTHING = struct.pack("HBBI", 0x06, 0, 0, 0)
"""One instruction of the kernel's packet filters: return 0, of a packet keep no byte."""
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_log = logging.getLogger(__name__)


class _Formations:
    """The groups that threads of this process are forming at the moment.

    Nobody can tell to which of them a port belongs. So those that have been opened since the first of them began are
    closed when the last of them has formed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before: dict[int, int] = {}
        self._own: set[int] = set()

    def begin(self) -> None:
        with self._lock:
            if self._count == 0:
                self._before = listening()
            self._count += 1

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                for inode, descriptor in listening().items():
                    if inode not in self._before and inode not in self._own:
                        close_to_newcomers(descriptor)

    def keep(self, inode: int) -> None:
        with self._lock:
            self._own.add(inode)


_formations = _Formations()


@contextlib.contextmanager
def closed_afterwards() -> Iterator[None]:
    """Ports on which a library begins to listen inside of the block admit nobody after it, or after others like it.

    Where the system has no such filters, the ports stay open.
    """
    _formations.begin()
    try:
        yield
    finally:
        _formations.end()


def keep_open(listener: socket.socket) -> None:
    """A port of our own, which asks for the key, goes on admitting whoever comes."""
    _formations.keep(os.fstat(listener.fileno()).st_ino)


def listening() -> dict[int, int]:
    """The descriptors of this process that listen on a port, by inode: numbers are given away again."""
    found = {}
    for descriptor in _sockets():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
            if sock.family in _INTERNET and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found[os.fstat(sock.fileno()).st_ino] = descriptor
    return found


def close_to_newcomers(descriptor: int) -> None:
    """Have the kernel drop what arrives at a listening socket; what is connected already stays connected."""
    code = ctypes.create_string_buffer(_DROP_EVERYTHING)
    program = struct.pack("HL", 1, ctypes.addressof(code))
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
    except OSError as error:
        _log.warning("a port of this process stays open to everybody who reaches it (%s)", error.strerror)


def _sockets() -> Iterator[int]:
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:  # no Linux
        return
    for number in numbers:
        with contextlib.suppress(OSError):  # it has been closed meanwhile
            if stat.S_ISSOCK(os.stat(int(number)).st_mode):
                yield int(number)
