"""The socket that browsers and Prometheus connect to, and what the threads of all their requests share."""

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
from workers.observing.live.history import History
from workers.observing.live.page_files import page_files
from workers.observing.live.places import Asking, Places

MAX_ASKING = 64
"""Connections whose request has not been read."""
MAX_CLIENTS = 64
"""Requests that are being answered, but for those of `/metrics`."""
MAX_STREAMS = 24
"""Pages that are open at once; the rest of the places are for loading."""
MAX_SCRAPES = 8
"""Places that are kept for `/metrics`, however many ask for the page."""
_log = logging.getLogger(__name__)


class PageServer(ThreadingHTTPServer):
    """What the threads of all requests share.

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
        config: settings.MetricsConfig,
        registry: CollectorRegistry,
        history: History,
        answers: type[BaseHTTPRequestHandler],
    ) -> None:
        self.address_family = family
        self.files = page_files() if config.page else {}
        self.history = history if config.page else None
        self.metrics_app = make_wsgi_app(registry)
        self.asking, self.clients = Asking(MAX_ASKING), Places(MAX_CLIENTS)
        self.streams, self.scrapes = Places(MAX_STREAMS), Places(MAX_SCRAPES)
        self.closing = threading.Event()
        self.name = config.host
        """What users were told, which is accepted as `Host` too."""
        self.loopback = ip_address(address[0].partition("%")[0]).is_loopback
        """Then only names of this machine are accepted as `Host`."""
        super().__init__(address[:2], answers)

    def server_bind(self) -> None:
        """Without asking the network for this machine's name, as the base class does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take it in; if there are too many already, who has been slowest to ask is cut off."""
        self.asking.enter(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One request, from its own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.asking.leave(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone away is no news; anything else is, and the run goes on."""
        _log.debug("a request of %s ended early", client_address, exc_info=True)
