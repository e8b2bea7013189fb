"""Whether a port can be served, checked before anything starts rather than after.

The sockets here are bound and closed again; they carry no data.
"""

from __future__ import annotations

import socket

from pipeline.config import MetricsConfig
from workers.observing.live.server import cannot_listen


def check_port(metrics: MetricsConfig) -> None:
    """Bind the metrics address and release it; with port 0 only the host is checked.

    Raises:
        ConfigError: the host is not an address of this machine, or the port cannot be had.
    """
    host, port = metrics.host, metrics.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: only listeners count
            probe.bind(address)
            probe.listen(1)
    except (OSError, UnicodeError) as error:
        raise cannot_listen(host, port, error) from None


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("", 0)) as probe:
        return int(probe.getsockname()[1])


def resolves(host: str) -> bool:
    """Whether the name of a host has an address here."""
    return bool(addresses_of(host))


def addresses_of(host: str) -> list[str]:
    """The addresses that the name of a host stands for here; none if it does not resolve."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
