"""The logs of a run's processes: one form, in which nothing that a terminal would act on is written as it is."""

from __future__ import annotations

import logging

from pipeline.errors import printable


class _Printable(logging.Formatter):
    """Names of files, and what a peer said, may hold escape sequences, and `cat` would obey them."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        return printable(super().format(record))


def log_to_stderr() -> None:
    """From here on this process logs to its standard error, whatever logged before."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
