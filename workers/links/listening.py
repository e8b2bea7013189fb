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
from collections.abc import Iterator

_ATTACH_FILTER = 26
"""SO_ATTACH_FILTER of Linux."""
_DROP_EVERYTHING = struct.pack("HBBI", 0x06, 0, 0, 0)
"""One instruction of the kernel's packet filters: return 0, of a packet keep no byte."""
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def closed_afterwards() -> Iterator[None]:
    """Ports on which this process begins to listen inside of the block admit nobody after it.

    No other thread may open a port meanwhile. Where the system has no such filters, the ports stay open.
    """
    before = listening()
    yield
    for inode, descriptor in listening().items():
        if inode not in before:
            close_to_newcomers(descriptor)


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
