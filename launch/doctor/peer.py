"""The connection between the two hosts that compare themselves: JSON objects, one a line, over one socket.

    onward doctor --with HOST:PORT           onward doctor --listen PORT
    OtherHost                         ---->
                                      <----  OtherHost, and whether it sees the first one's file
    clock? (several times)            ---->
                                      <----  its time
    probe?                            ---->
                                      <----  by which addresses it reaches the first one
    bytes                             ---->  (counted)
    findings                          ---->  both print them

Nobody is authenticated, and nothing is believed: what is read is bounded, checked, and only printed.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from launch.doctor.comparison import OtherHost, clock, same_versions, shared, speed, way
from launch.doctor.findings import Finding
from launch.processes.shared_folder import is_seen
from pipeline.errors import UserError
from workers.control.validation import MalformedMessage
from workers.links.wire import describe
from workers.run.json_lines import parse_object
from workers.topology.network import ProbeListener, reach_each, reason

WAIT_SECONDS = 600.0
"""How long the other host may take to come."""
STEP_SECONDS = 30.0
CONNECT_SECONDS = 10.0
LINE_BYTES = 1 << 18
CLOCK_ROUNDS = 5
SPEED_BYTES = 64 << 20
PIECE = bytes(1 << 20)
MOST = 40
"""Findings that are printed."""


class Peer:
    """One side of the connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(STEP_SECONDS)
        self._socket, self._rest = connection, b""

    def send(self, message: dict[str, Any]) -> None:
        """Send one object."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """The next object; raises `UserError`."""
        while b"\n" not in self._rest:
            piece = self._socket.recv(1 << 16)
            if not piece or len(self._rest) > LINE_BYTES:
                raise UserError("the other side is no 'onward doctor', or has ended. Start both again")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        if (message := parse_object(line)) is None:
            raise UserError("the other side is no 'onward doctor'. Give the port that it prints")
        return message

    def send_bytes(self, count: int) -> None:
        """Send so many bytes that mean nothing."""
        for _ in range(count // len(PIECE)):
            self._socket.sendall(PIECE)

    def receive_bytes(self, count: int) -> None:
        """Receive and forget so many bytes."""
        count -= len(self._rest)
        self._rest = b""
        while count > 0:
            piece = self._socket.recv(min(count, len(PIECE)))
            if not piece:
                raise UserError("the other side has ended. Start both again")
            count -= len(piece)


@contextmanager
def _in_words(where: str) -> Iterator[None]:
    """Whatever goes wrong with the connection is one sentence."""
    try:
        yield
    except MalformedMessage:
        raise UserError("the other host has another version of 'onward doctor'. Check out the same commit") from None
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise UserError(f"{where}: {why}. Is the other side listening, and does a firewall let it pass?") from None


def compare_with(address: tuple[str, int], here: OtherHost) -> list[Finding]:
    """Connect to the host that listens, and compare; raises `UserError`."""
    with _in_words(describe(address)), socket.create_connection(address, CONNECT_SECONDS) as connection:
        peer = Peer(connection)
        with ProbeListener([]) as probes:
            here = replace(here, port=probes.port, token=probes.token)
            peer.send(here.to_message())
            answer = peer.receive()
            seen = bool(answer.pop("seen", False))
            there = OtherHost.from_message(answer)
            offset, round_trip = _clock(peer)
            findings = [same_versions(here, there), clock(offset, round_trip / 2, here.host, there.host)]
            findings.append(_way(here, there))
            peer.send({"probe": True})
            back = Finding.from_message(peer.receive())
        peer.send({"bytes": SPEED_BYTES})
        started = time.perf_counter()
        peer.send_bytes(SPEED_BYTES)
        peer.receive()
        findings += [back, speed(SPEED_BYTES / (time.perf_counter() - started), round_trip), shared(seen, here, there)]
        peer.send({"findings": [finding.to_message() for finding in findings]})
        return findings


def answer_one(listener: socket.socket, here: OtherHost) -> list[Finding]:
    """Wait for the other host, and compare; raises `UserError`.

    Args:
        listener: where it comes to.
        here: this host.
    """
    listener.settimeout(WAIT_SECONDS)
    with _in_words("nobody came"):
        connection, _ = listener.accept()
    with _in_words("the connection"), connection, ProbeListener([]) as probes:
        peer = Peer(connection)
        there = OtherHost.from_message(peer.receive())
        seen = bool(there.mark) and Path(here.folder).is_dir() and is_seen(Path(here.folder) / there.mark)
        mine = replace(here, port=probes.port, token=probes.token)
        peer.send({**mine.to_message(), "seen": seen})
        while True:
            asked = peer.receive()
            if "clock" in asked:
                peer.send({"time": time.time()})
            elif "probe" in asked:
                peer.send(_way(mine, there).to_message())
            elif "bytes" in asked:
                peer.receive_bytes(SPEED_BYTES)
                peer.send({"received": SPEED_BYTES})
            else:
                found = asked.get("findings")
                return [Finding.from_message(each) for each in found[:MOST]] if isinstance(found, list) else []


def listen(port: int) -> socket.socket:
    """Listen at a port, 0 for any; raises `UserError`."""
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except (OSError, OverflowError) as error:
        raise UserError(f"--listen: port {port} cannot be had ({error}). Give another, or 0 for any") from None


def _way(here: OtherHost, there: OtherHost) -> Finding:
    tried = reach_each((address, there.port, there.token) for address in there.addresses[:MOST])
    reached = {target[0]: own for target, own in tried.items() if not isinstance(own, OSError)}
    failed = [reason(error, *target[:2]) for target, error in tried.items() if isinstance(error, OSError)]
    ordered = {address: reached[address] for address in there.addresses if address in reached}
    return way(here.host, there.host, ordered, failed)


def _clock(peer: Peer) -> tuple[float, float]:
    """The other's clock less ours, and the round trip, of the quickest of several questions; seconds."""
    found = []
    for _ in range(CLOCK_ROUNDS):
        asked, started = time.time(), time.perf_counter()
        peer.send({"clock": True})
        there = peer.receive().get("time")
        trip = time.perf_counter() - started
        found.append((trip, float(there if isinstance(there, int | float) else asked) - asked - trip / 2))
    trip, offset = min(found)
    return offset, trip
