"""One process that imports everything once and then forks: a run's processes start in a fraction of a second.

Importing torch takes each process seconds of computing. The fork server does it once for all of them, so that a run
starts sooner, a stage that died comes back sooner, and the pages of the libraries are shared. It computes nothing,
opens nothing on a GPU and starts no thread, which is what makes forking it safe; the Python documentation describes
the same idea for its own `multiprocessing` start method of that name.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Iterable
from dataclasses import replace

from setproctitle import setproctitle

from workers.control.start_messages import ForkOrder
from workers.run.polling import readable
from workers.run.signals import WARNINGS

PRELOAD = (
    "torch",
    "torch._dynamo",
    "launch.failure",
    "launch.prepare.run_dir",
    "workers.coordinator.coordinator",
    "workers.stage.process",
)
"""What the processes of a run import; `torch._dynamo` is loaded by the first optimizer."""
MESSAGE_BYTES = 1 << 20
STREAMS = 5
"""At most so many descriptors come with an order: standard input, output and error, the pipe of the answers, a lock."""


def serve(orders: socket.socket) -> ForkOrder | None:
    """Fork for every order until the other end closes; the order, in the forked process, and None in the server."""
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    # They are the starting process's to handle; without this one nobody would know how the others end.
    theirs = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in (signal.SIGINT, *WARNINGS):
        signal.signal(number, signal.SIG_IGN)
    # What the starting process has blocked every process forked here would inherit, and could not be ended in order.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    while True:
        ready = readable([orders.fileno(), awake])
        if awake in ready:
            os.read(awake, 4096)
            _reap(orders)
        if orders.fileno() in ready:
            order = _next_order(orders)
            if order is None:
                return None
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for number, handler in theirs.items():
                    signal.signal(number, handler)
                for descriptor in (awake, wake):
                    os.close(descriptor)
                orders.close()
                return order
            for descriptor in order.streams:
                os.close(descriptor)
            _say(orders, {"started": pid})


def load(modules: Iterable[str]) -> None:
    """Import what the forked processes share, and keep the collector from copying its pages by writing to them.

    Nearly all that importing makes stays: to look for garbage in it would take a third of a second, and free nothing.
    """
    gc.disable()
    for name in modules:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()


def run_as(order: ForkOrder) -> None:
    """Turn the forked process into the one that was ordered: a session, streams and an environment of its own."""
    os.setsid()
    answers = order.streams[3]
    for number, descriptor in enumerate(order.streams[:3]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    setproctitle(order.title)  # it finds its place beside the environment, so that must still be the first one
    for name in order.gone:
        os.environ.pop(name, None)
    os.environ.update(order.changes)
    sys.argv = [order.module, str(answers)]
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


def _next_order(orders: socket.socket) -> ForkOrder | None:
    data, streams, _, _ = socket.recv_fds(orders, MESSAGE_BYTES, STREAMS)
    if not data:
        return None
    return replace(ForkOrder.from_message(json.loads(data)), streams=tuple(streams))


def _reap(orders: socket.socket) -> None:
    """Tell of every process that has ended, and how."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            _say(orders, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _say(orders: socket.socket, word: dict[str, int]) -> None:
    with contextlib.suppress(OSError):  # the other end has gone, which the next round finds
        orders.send(json.dumps(word).encode())


if __name__ == "__main__":
    channel = socket.socket(fileno=int(sys.argv[1]))
    load(PRELOAD)
    ordered = serve(channel)
    if ordered is not None:
        run_as(ordered)
