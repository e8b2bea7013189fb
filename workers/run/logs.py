"""Logging of a run's processes to standard error: one format, with control characters escaped."""

from __future__ import annotations

import logging

from pipeline.errors import printable


class _Printable(logging.Formatter):
    """Escapes control characters: file names and messages of peers may hold sequences that a terminal would execute."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        return printable(super().format(record))


def log_to_stderr() -> None:
    """Send all log records of this process to standard error, replacing earlier handlers."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
