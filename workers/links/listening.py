"""Stops Gloo's ports from accepting further connections once a process group has formed.

Gloo listens as long as a process group lives, authenticates nobody, keeps every connection, and ends the process when
these have used up its open files. It needs the port only while the group forms. We cannot close Gloo's socket, but we
can attach a packet filter that drops everything to it. Established connections have sockets of their own and continue.
Where the kernel lets only root attach one, Gloo is no longer told of newcomers, and the one place for them is taken.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import re
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

_ATTACH_FILTER = 26
"""SO_ATTACH_FILTER of Linux."""
_DROP_EVERYTHING = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A packet filter (BPF) of one instruction: return 0, keep no byte of the packet."""
_EPOLL_CTL_MOD = 3
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_log = logging.getLogger(__name__)


class _EpollEvent(ctypes.Structure):
    """`struct epoll_event` of Linux, which has no padding on x86-64."""

    _pack_ = 1 if platform.machine() == "x86_64" else 0
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class _Formations:
    """The groups that threads of this process are forming at the moment.

    A port does not show to which group it belongs. So all ports that were opened since the first group began are
    filtered when the last has formed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before: dict[int, int] = {}
        self._own: set[int] = set()

    def begin(self) -> None:
        with self._lock:
            if self._count == 0:
                self._before = listening_sockets()
            self._count += 1

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                for inode, descriptor in listening_sockets().items():
                    if inode not in self._before and inode not in self._own:
                        refuse_newcomers(descriptor)

    def keep(self, inode: int) -> None:
        with self._lock:
            self._own.add(inode)


_formations = _Formations()


@contextlib.contextmanager
def closed_afterwards() -> Iterator[None]:
    """Filter the ports that a library opens inside the block, at its end or at that of the last concurrent block.

    Where the system has no such filters, the ports stay open.
    """
    _formations.begin()
    try:
        yield
    finally:
        _formations.end()


def keep_open(listener: socket.socket) -> None:
    """Exempt a listener of ours, which authenticates its clients."""
    _formations.keep(os.fstat(listener.fileno()).st_ino)


def listening_sockets() -> dict[int, int]:
    """Descriptors of this process that listen on a port, by inode, because descriptor numbers are reused."""
    found = {}
    for descriptor in _sockets():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
            if sock.family in _INTERNET and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found[os.fstat(sock.fileno()).st_ino] = descriptor
    return found


def refuse_newcomers(descriptor: int) -> None:
    """Have the kernel drop whatever would open a connection to a listening socket; established ones continue."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as listener:
            try:
                _attach_filter(listener)
            except OSError:
                _leave_no_room(listener, descriptor)
    except OSError as error:
        _log.warning("a port of this process stays open to everybody who reaches it (%s)", error.strerror)


def _attach_filter(listener: socket.socket) -> None:
    code = ctypes.create_string_buffer(_DROP_EVERYTHING)
    listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(code)))


def _leave_no_room(listener: socket.socket, descriptor: int) -> None:
    """Let connections wait for ever to be accepted, allow one to wait, and be that one ourselves.

    The kernel then drops what would open another.
    """
    for watcher, data in _watchers(descriptor):
        # The library's own pointer stays with the descriptor: it may still be told of an error.
        event = _EpollEvent(0, data)
        if ctypes.CDLL(None, use_errno=True).epoll_ctl(watcher, _EPOLL_CTL_MOD, descriptor, ctypes.byref(event)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    listener.listen(0)
    with socket.socket(listener.family) as last:
        last.setblocking(False)  # on one host a connection is there at once, or nobody gets one any more
        last.connect_ex(listener.getsockname())


def _watchers(descriptor: int) -> Iterator[tuple[int, int]]:
    """The epoll descriptors of this process that watch `descriptor`, and the data that they keep with it."""
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # it has been closed meanwhile
            if os.readlink(f"/proc/self/fd/{entry}") == "anon_inode:[eventpoll]":
                text = Path(f"/proc/self/fdinfo/{entry}").read_text()
                for watched, data in re.findall(r"^tfd:\s*(\d+) .*?data:\s*([0-9a-f]+)", text, re.MULTILINE):
                    if int(watched) == descriptor:
                        yield int(entry), int(data, 16)


def _sockets() -> Iterator[int]:
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:  # not Linux
        return
    for number in numbers:
        with contextlib.suppress(OSError):  # it has been closed meanwhile
            if stat.S_ISSOCK(os.stat(int(number)).st_mode):
                yield int(number)
