"""The run from one terminal: connects to all hosts, starts the ranks, shows what they print, waits for their end.

    connect to all        one line for every host that cannot be reached, and exit code 2
    find an address       of the first host that all others reach; the ranks make the further checks themselves
    start the ranks       as torchrun would
    wait                  the first Ctrl-C or SIGTERM asks for a snapshot, the second ends all at once

What the first host prints is shown, its coordinator's output; of the others only errors, with the name of the host.
"""

from __future__ import annotations

import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType

from launch.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, print_error
from launch.hosts.connection import ANSWER_SECONDS, Checkout, HostConnection
from launch.hosts.host_list import distribute, parse_hosts
from launch.hosts.messages import HostFacts, Listen, Listening, Reach, StartRanks, StopRanks, Ways
from launch.prepare.ranks import check_pipelined
from pipeline.config import Config
from pipeline.errors import ConfigError, UserError, printable
from workers.control.failures import STOPPING
from workers.observing.terminal.verbosity import detail, say
from workers.run.keys import new_key
from workers.run.notice import notice_after
from workers.run.signals import stop_signals
from workers.topology.processes import training_processes

POLL_SECONDS = 0.05
FAILED_SECONDS = 25.0
"""After one host has ended with a failure, the others notice it and end; those left after this time are ended."""
ENDED_SECONDS = 120.0
"""After the first host has ended well, which it does last."""
LEAVE_SECONDS = 30.0
"""What ending takes beside the snapshot."""
END_SECONDS = 15.0
"""Between asking ranks to stop after a failure elsewhere, and killing them."""
OPEN_PORTS = "Open all ports between the hosts (firewall), or give network.interface=NAME"


@dataclass(frozen=True)
class HostsRequest:
    """What the user has typed.

    Args:
        hosts: the list.
        python, folder: of the checkout on the other hosts; None if as here.
        arguments: of `launch.train`, the same on every host.
    """

    hosts: str
    python: str | None
    folder: str | None
    arguments: list[str]


def train_on_hosts(config: Config, request: HostsRequest) -> int:
    """Train on several hosts; returns the exit code.

    Raises:
        UserError: a host cannot be reached or lacks something, or the run does not fit the hosts.
    """
    entries = parse_hosts(request.hosts)
    processes = check_for_ssh(config)
    distribute(entries, None, min(processes, sum(entry.slots or processes for entry in entries)))  # before any waiting
    checkout = Checkout.like_here(request.folder, request.python)
    with ExitStack() as stack:
        output = Output()
        connections: list[HostConnection] = []
        stack.callback(_end_all, connections)
        for entry in entries:
            connections.append(HostConnection(entry, checkout, output.show))
        output.first = connections[0]
        facts = _facts(connections)
        wanted = {config.stage(index).device for index in range(1, config.num_stages + 1)}
        counts = distribute(entries, None if wanted == {"cpu"} else [each.gpus for each in facts], processes)
        address, port = _rendezvous(connections, config)
        leave_seconds = config.snapshots.leave_seconds + LEAVE_SECONDS
        starts = _starts(counts, address, port, request.arguments, leave_seconds)
        for connection, start, fact in zip(connections, starts, facts, strict=True):
            ranks = f"ranks {start.first_rank} to {start.first_rank + start.count - 1}"
            detail(f"{connection.name} ({fact.name}): {ranks}, which meet at {address}, port {port}")
        asked = stack.enter_context(_stop_requests(config))
        for connection, start in zip(connections, starts, strict=True):
            connection.start(start)
        return _wait(connections, asked, leave_seconds)


def check_for_ssh(config: Config) -> int:
    """The number of processes; raises `UserError` if several hosts cannot run them."""
    check_pipelined(config)
    if config.restart != "none":
        problem = f"got '{config.restart}', and --hosts starts the processes once"
        raise ConfigError("restart", problem, "Give restart=none; the same command with run_dir=FOLDER goes on")
    if config.network.address is not None:
        problem = "names an address of one host, and --hosts gives all the same command line"
        raise ConfigError("network.address", problem, "Give network.interface=NAME, or leave it out")
    return len(training_processes(config))


@contextmanager
def _stop_requests(config: Config) -> Iterator[Callable[[], int]]:
    """How often the user has asked to stop."""
    asked = 0

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1

    previous = {number: signal.signal(number, request) for number in stop_signals(config)}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _facts(connections: Sequence[HostConnection]) -> list[HostFacts]:
    """How every host presents itself; raises one `UserError` with the problems of all."""
    deadline, problems, found = time.monotonic() + ANSWER_SECONDS, [], []
    with notice_after(lambda: say(f"waiting for {', '.join(each.name for each in connections)} to answer")):
        for connection in connections:
            try:
                found.append(connection.answer(HostFacts, deadline))
            except UserError as error:
                problems.append(str(error))
    if problems:
        raise UserError(". Also: ".join(problems))
    return found


def _rendezvous(connections: Sequence[HostConnection], config: Config) -> tuple[str, int]:
    """Address and port of the first host by which all others reach it; raises `UserError`."""
    first, *others = connections
    deadline = time.monotonic() + ANSWER_SECONDS
    first.send(Listen(interface=config.network.interface or ""))
    listening = first.answer(Listening, deadline)
    if listening.problem:
        raise UserError(f"{first.name}: {listening.problem}")
    if not others:
        return "127.0.0.1", listening.free_port
    for other in others:
        other.send(Reach(addresses=listening.addresses, port=listening.port, token=listening.token))
    ways = [other.answer(Ways, deadline) for other in others]
    for address in listening.addresses:
        if all(address in way.reached for way in ways):
            return address, listening.free_port
    cut_off = [(other, way) for other, way in zip(others, ways, strict=True) if not way.reached]
    if cut_off:
        problems = [
            f"{other.name} cannot connect to {first.name} ({'; '.join(way.unreached)})" for other, way in cut_off
        ]
        raise UserError(f"{'. Also: '.join(problems)}. {OPEN_PORTS}")
    each = "; ".join(f"{other.name} by {', '.join(way.reached)}" for other, way in zip(others, ways, strict=True))
    raise UserError(f"the hosts reach {first.name} by different addresses ({each}). {OPEN_PORTS}")


def _starts(
    counts: Sequence[int], address: str, port: int, arguments: list[str], leave_seconds: float
) -> list[StartRanks]:
    key = new_key()
    return [
        StartRanks(
            first_rank=sum(counts[:index]),
            count=count,
            world_size=sum(counts),
            address=address,
            port=port,
            key=key,
            arguments=arguments,
            leave_seconds=leave_seconds,
        )
        for index, count in enumerate(counts)
    ]


def _wait(connections: Sequence[HostConnection], asked: Callable[[], int], leave_seconds: float) -> int:
    """Until all hosts have ended; the exit code of the first of them, or of the first that failed."""
    passed_on, end_at = 0, float("inf")
    while None in (codes := [connection.process.poll() for connection in connections]):
        if asked() > passed_on:
            passed_on += 1
            if passed_on == 1:
                say(f"asked to stop: {STOPPING}", important=True)
            for connection in connections:
                connection.send(StopRanks(seconds=leave_seconds if passed_on == 1 else 0.0))
        if any(codes):
            end_at = min(end_at, time.monotonic() + FAILED_SECONDS)
        elif codes[0] is not None:
            end_at = min(end_at, time.monotonic() + ENDED_SECONDS)
        if time.monotonic() > end_at:
            for connection in connections:
                connection.send(StopRanks(seconds=END_SECONDS))
            break
        time.sleep(POLL_SECONDS)
    _end_all(connections)
    lost = [sentence for connection in connections if (sentence := connection.lost())]
    for sentence in lost:
        print_error(f"error: {sentence}. The same command with the run's run_dir goes on from its last snapshot")
    if passed_on > 1:
        print_error("interrupted at once")
        return EXIT_INTERRUPTED
    code = next((code for connection in connections if (code := connection.process.returncode)), 0)
    if code in (0, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED):
        return code
    return EXIT_INTERRUPTED if passed_on else EXIT_FAILED


def _end_all(connections: Sequence[HostConnection]) -> None:
    for connection in connections:
        connection.close()
    for connection in connections:
        connection.end(LEAVE_SECONDS)


class Output:
    """What the hosts print, on one terminal; called from their threads."""

    def __init__(self) -> None:
        self.first: HostConnection | None = None
        """The host whose output is shown as it is."""
        self._lock = threading.Lock()
        self._said: set[str] = set()
        """Errors that were shown: the ranks of all hosts say the same where a run cannot start."""

    def show(self, host: HostConnection, line: str, error: bool) -> None:
        """Print one line of a host."""
        with self._lock:
            if error and line.startswith("error: "):
                if line in self._said:
                    return
                self._said.add(line)
            prefix = "" if host is self.first else f"{host.name}: "
            stream = sys.stderr if error else sys.stdout
            stream.write(f"{prefix}{printable(line)}\n{way_to_page(host, line)}")
            stream.flush()


def way_to_page(host: HostConnection, line: str) -> str:
    """After the line with the address of the live page on another host: how it is seen from here."""
    found = re.match(r"watch at http://127\.0\.0\.1:(\d+)/", line)
    if found is None or host.entry.is_here:
        return ""
    port = found[1]
    return f"that is on {host.name}; to see it here: ssh -N -L {port}:127.0.0.1:{port} {shlex.quote(host.name)}\n"
