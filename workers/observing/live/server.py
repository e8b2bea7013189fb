"""The coordinator's one HTTP server: the live page, its data, and the metrics for Prometheus.

It changes nothing, and listens on the loopback address unless told otherwise. Every request has a thread of its own
that dies with the process, a bounded time to come and to be answered, and one of a bounded number of places; training
knows nothing of who looks.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry

from pipeline import config as settings
from pipeline.errors import ConfigError
from workers.links import wire
from workers.observing.live.answers import Answers
from workers.observing.live.history import History
from workers.observing.live.page_server import PageServer

GOODBYE_SECONDS = 2.0
"""How long open pages may take to hear how the run ended."""
_REMEDY = "Give 127.0.0.1, 0.0.0.0 for every interface, or metrics.enabled=false"
_LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""By the address that stands for every interface: one that leads to this machine."""
_log = logging.getLogger(__name__)


class LiveServer:
    """Serves one run; a context manager.

    Args:
        config: where to listen, and whether there is a page.
        registry: what `/metrics` shows.
        history: what the page shows.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(self, config: settings.MetricsConfig, registry: CollectorRegistry, history: History) -> None:
        self.config, self.history = config, history
        self._server = _listen(config, registry, history)
        self.url = self._url(_LOCAL.get(self._server.server_name, config.host))
        """Of the page; where every interface is listened on, as this machine itself may ask."""
        self.metrics_url = f"{self.url}metrics"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="live page", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def invitation(self) -> str:
        """One sentence for the console."""
        others = f", from other machines {self._url(socket.gethostname())}"
        where = self.url + (others if self._server.server_name in _LOCAL else "")
        return f"watch at {where} (metrics at {self.metrics_url})" if self.config.page else self._metrics_alone

    @property
    def _metrics_alone(self) -> str:
        return f"metrics at {self.metrics_url}"

    def _url(self, host: str) -> str:
        return f"http://{wire.in_address(host)}:{self._server.server_port}/"

    def close(self) -> None:
        """Tell open pages how the run has ended, if it has, and stop; takes at most a few seconds."""
        self._server.closing.set()
        deadline = time.monotonic() + GOODBYE_SECONDS
        while self._server.streams.taken and time.monotonic() < deadline:
            time.sleep(0.02)
        self._server.shutdown()
        self._thread.join(GOODBYE_SECONDS)
        self._server.server_close()


def _listen(config: settings.MetricsConfig, registry: CollectorRegistry, history: History) -> PageServer:
    host, port = config.host, config.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return PageServer(family, address, config, registry, history, Answers)
    except (OSError, UnicodeError) as error:
        raise cannot_listen(host, port, error) from None


def cannot_listen(host: str, port: int, error: OSError | UnicodeError) -> ConfigError:
    """In words, why nobody can listen there: what `getaddrinfo` or `bind` has raised."""
    if isinstance(error, socket.gaierror | UnicodeError):
        reason = getattr(error, "strerror", None) or "not a host name"
        return ConfigError("metrics.host", f"'{host}' cannot be resolved ({reason})", _REMEDY)
    if isinstance(error, PermissionError):
        remedy = "Give a port from 1024 on, or metrics.port=0 for any free one"
        return ConfigError("metrics.port", f"you may not serve port {port}", remedy)
    if error.errno == errno.EADDRINUSE:
        remedy = "Give metrics.port=0 for any free one, another port, or metrics.enabled=false"
        return ConfigError("metrics.port", f"port {port} of {host} is taken", remedy)
    return ConfigError("metrics.host", f"'{host}' is not an address of this machine ({error.strerror})", _REMEDY)
