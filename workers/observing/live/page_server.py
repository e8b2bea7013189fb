"""The HTTP server's socket and threads, and the state that its requests share."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app

from pipeline import config as settings
from workers.observing.live.connection_limits import ConnectionLimit, PendingRequests
from workers.observing.live.history import History
from workers.observing.live.page_files import page_files

MAX_ASKING = 64
"""Limit of connections whose request has not been received."""
MAX_CLIENTS = 64
"""Limit of requests being answered, except for `/metrics`."""
MAX_STREAMS = 24
"""Limit of open event streams; the remaining slots are for loading pages."""
MAX_SCRAPES = 8
"""Slots that are reserved for `/metrics`."""
_log = logging.getLogger(__name__)


class PageServer(ThreadingHTTPServer):
    """The server, with the state that its requests share.

    Args:
        family: IPv4 or IPv6.
        address: host and port.
        config, registry, history: see `LiveServer`.
        answers: handles each request.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(
        self,
        family: socket.AddressFamily,
        address: tuple[Any, ...],
        *,
        config: settings.MetricsConfig,
        registry: CollectorRegistry,
        history: History,
        answers: type[BaseHTTPRequestHandler],
    ) -> None:
        self.address_family = family
        self.files = page_files() if config.page else {}
        self.history = history if config.page else None
        self.metrics_app = make_wsgi_app(registry)
        self.asking, self.clients = PendingRequests(MAX_ASKING), ConnectionLimit(MAX_CLIENTS)
        self.streams, self.scrapes = ConnectionLimit(MAX_STREAMS), ConnectionLimit(MAX_SCRAPES)
        self.closing = threading.Event()
        self.name = config.host
        """The configured host name, which is accepted as `Host` too."""
        self.loopback = ip_address(address[0].partition("%")[0]).is_loopback
        """Whether only names of this machine are accepted as `Host`."""
        super().__init__(address[:2], answers)

    def server_bind(self) -> None:
        """Bind without the reverse DNS lookup of the base class."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Accept a connection; if there are too many, the one that is slowest to send its request is closed."""
        self.asking.enter(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle one request in its own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.asking.leave(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log at debug level: usually a browser has disconnected, and the run goes on in any case."""
        _log.debug("a request of %s ended early", client_address, exc_info=True)
