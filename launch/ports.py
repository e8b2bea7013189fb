"""Whether a port can be served, asked before anything starts rather than found out after.

The sockets here are bound or connected and closed again; they carry no data.
"""

from __future__ import annotations

import errno
import socket

from pipeline.config import Metrics
from pipeline.errors import ConfigError, UserError

_HOST_REMEDY = "Give 127.0.0.1, 0.0.0.0 for every interface, or metrics.enabled=false"


def check_port(metrics: Metrics) -> None:
    """Bind the metrics address and let it go; port 0 asks for the host alone.

    Raises:
        ConfigError: the host is not an address of this machine, or the port cannot be had.
    """
    host, port = metrics.host, metrics.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise ConfigError("metrics.host", f"'{host}' cannot be resolved ({reason})", _HOST_REMEDY) from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: only listeners count
        try:
            probe.bind(address)
            probe.listen(1)
        except PermissionError:
            remedy = "Give a port from 1024 on, or metrics.port=0 for any free one"
            raise ConfigError("metrics.port", f"you may not serve port {port}", remedy) from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                remedy = "Give metrics.port=0 for any free one, another port, or metrics.enabled=false"
                raise ConfigError("metrics.port", f"port {port} of {host} is taken", remedy) from None
            problem = f"'{host}' is not an address of this machine ({error.strerror})"
            raise ConfigError("metrics.host", problem, _HOST_REMEDY) from None


def own_address(towards: str) -> str:
    """The address of this host by which it reaches the host `towards`; raises `UserError`."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(towards, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # of a datagram socket: nothing is sent
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UserError(f"this host has no way to '{towards}' ({error.strerror}). Check MASTER_ADDR") from None
