"""By which address other hosts reach this one: the addresses that it has, and the test whether one is reached.

    this host                                another host
    candidates(): 10.78.0.1, 10.77.0.1
    ProbeListener: port 4711, token          reach(10.78.0.1, 4711, token): no answer
                                             reach(10.77.0.1, 4711, token): by way of 10.77.0.2

A probe carries nothing but the token, by which the other side knows that it has reached the right process: two hosts
may have the same address, as 127.0.1.1 or that of a container's bridge.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Sequence

import psutil

from pipeline.config.network import NetworkConfig
from pipeline.errors import ConfigError
from workers.links.wire import describe
from workers.run.closable import Closable

INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
"""By which Gloo and TensorPipe are told their interface."""
PROBE_SECONDS = 3.0
"""Limit for one probe; an address that does not answer within it leads nowhere."""
FAR_AWAY = (("198.51.100.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))
"""Addresses kept for documentation: the way to them is the default route. Nothing is sent there."""


def addresses_by_interface() -> dict[str, list[str]]:
    """The addresses of every interface that is up, without those that are valid on one cable only (link-local)."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    return {
        name: [each.address for each in found if each.family in (socket.AF_INET, socket.AF_INET6)
               and not ipaddress.ip_address(each.address.partition("%")[0]).is_link_local]
        for name, found in psutil.net_if_addrs().items()
        if name in up
    }  # fmt: skip


def interface_of(address: str) -> str | None:
    """The interface that has an address; None if none has."""
    if ipaddress.ip_address(address).is_loopback:
        return next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    return next((name for name, found in addresses_by_interface().items() if address in found), None)


def use_interface_of(address: str) -> None:
    """Have Gloo and TensorPipe use the interface that has `address`, where the user has not told them theirs."""
    name = interface_of(address)
    for variable in INTERFACE_VARIABLES if name is not None else ():
        os.environ.setdefault(variable, str(name))


def candidates(network: NetworkConfig, towards: str | None) -> list[str]:
    """The addresses by which others may reach this host, the likeliest first.

    Args:
        network: what the user has said.
        towards: own address of a connection to the host that torchrun named; loopback only if that is.

    Raises:
        ConfigError: the address or interface that the user named is none of this host.
    """
    there = addresses_by_interface()
    every = list(dict.fromkeys(address for found in there.values() for address in found))
    if network.address is not None:
        if network.address not in every:
            problem = f"'{network.address}' is no address of {socket.gethostname()}"
            raise ConfigError("network.address", problem, f"It has {', '.join(every)}")
        return [network.address]
    if network.interface is not None:
        if not there.get(network.interface):
            problem = f"'{network.interface}' is no interface of {socket.gethostname()} that is up and has an address"
            raise ConfigError(
                "network.interface", problem, f"It has {', '.join(name for name in there if there[name])}"
            )
        return there[network.interface]
    default = [address for target, family in FAR_AWAY if (address := _way_to(target, family)) is not None]
    others = [address for address in every if not ipaddress.ip_address(address).is_loopback]
    return list(dict.fromkeys([*([towards] if towards else []), *default, *others]))


def _way_to(target: str, family: socket.AddressFamily) -> str | None:
    """The own address towards a host; of a datagram socket: nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


class ProbeListener(Closable):
    """Answers every connection with a token, from a thread, until it is closed.

    Args:
        addresses: to listen on; of several, all that this host has.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.token = secrets.token_hex(16)
        self._listener = _listen(addresses[0] if len(addresses) == 1 else None)
        self.port: int = self._listener.getsockname()[1]
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._answer, name="probes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        self._thread.join()
        self._listener.close()

    def _answer(self) -> None:
        self._listener.settimeout(0.1)
        while not self._closed.is_set():
            with contextlib.suppress(OSError):  # nobody came, or has gone again
                accepted, _ = self._listener.accept()
                with accepted:
                    accepted.settimeout(PROBE_SECONDS)
                    accepted.sendall(self.token.encode())


def _listen(address: str | None) -> socket.socket:
    if address is not None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, 0), family=family)
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # IPv6 is switched off
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def reach(address: str, port: int, token: str, timeout: float = PROBE_SECONDS) -> str:
    """The own address of a connection to a `ProbeListener` at `address`.

    Raises:
        OSError: nobody answers there, or somebody else does.
    """
    deadline = time.monotonic() + timeout
    with socket.create_connection((address, port), timeout) as probe:
        own, answer = str(probe.getsockname()[0]), b""
        while len(answer) < len(token):
            probe.settimeout(max(deadline - time.monotonic(), 0.001))
            if not (more := probe.recv(len(token) - len(answer))):
                break
            answer += more
    if answer.decode(errors="replace") != token:
        raise ConnectionError("another program answers there")
    return own


def reach_each(targets: Iterable[tuple[str, int, str]]) -> dict[tuple[str, int, str], str | OSError]:
    """`reach` of address, port and token, all at the same time: the own address, or why not."""
    found: dict[tuple[str, int, str], str | OSError] = {}

    def attempt(target: tuple[str, int, str]) -> None:
        try:
            found[target] = reach(*target)
        except OSError as error:
            found[target] = error

    threads = [threading.Thread(target=attempt, args=(target,), daemon=True) for target in dict.fromkeys(targets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def wait_for_port(host: str, port: int, refused: float, silent: float) -> str:
    """Wait until somebody listens at a port; the own address of a connection to it.

    Args:
        host: name or address.
        port: of it.
        refused: seconds to try again while the host answers that nobody listens.
        silent: seconds to try again while the name does not resolve or nothing answers.

    Raises:
        OSError: why that was not possible.
    """
    started = time.monotonic()
    while True:
        try:
            with socket.create_connection((host, port), PROBE_SECONDS) as connection:
                return str(connection.getsockname()[0])
        except OSError as error:
            limit = refused if isinstance(error, ConnectionRefusedError) else silent
            if time.monotonic() - started > limit:
                raise
        time.sleep(0.2)


def reason(error: OSError, address: str, port: int) -> str:
    """Why an address was not reached, in words."""
    text = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
    return f"{describe((address, port))}: {text}"
