"""The place where the two processes of a link leave word for each other before they are connected."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta

from torch.distributed import FileStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from pipeline.errors import UserError, reason_of
from workers.links.base import LinkAddress, LinkTimeout, seconds

STORE_SECONDS = 30.0
"""Longest wait for the store itself to answer."""

POLL_SECONDS = 0.02
_WHERE = "where"


class LinkStore:
    """A link's own corner of the run's store.

    Args:
        address: of the link; its `store` is `file:///PATH` or `tcp://HOST:PORT`.

    Raises:
        UserError: the store's address is neither.
        LinkTimeout: nobody hosts the store.
    """

    def __init__(self, address: LinkAddress) -> None:
        self._address, self._store = address, PrefixStore(f"onward/{address.name}", _open(address))

    def of_opening(self, nonce: str) -> Store:
        """A corner that only one opening of the link uses: keys of an earlier one would mislead it."""
        return PrefixStore(nonce, self._store)

    def publish(self, text: str) -> None:
        """Say where the receiver listens."""
        with self._answering():
            self._store.set(_WHERE, text)

    def withdraw(self) -> None:
        """The receiver does not listen any more."""
        with self._answering():
            self._store.delete_key(_WHERE)

    def published(self, deadline: float) -> str:
        """Where the receiver listens; raises `TimeoutError` if it has not said so by `deadline`."""
        with self._answering():
            while not self._store.check([_WHERE]):
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{self._address.receiver} has not said where it listens")
                time.sleep(POLL_SECONDS)
            return bytes(self._store.get(_WHERE)).decode()

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            gone = f"{self._address}: the store at {self._address.store} does not answer"
            raise LinkTimeout(f"{gone} ({reason_of(error)})") from None


def _open(address: LinkAddress) -> Store:
    scheme, _, where = address.store.partition("://")
    host, _, port = where.rpartition(":")
    limit = timedelta(seconds=STORE_SECONDS)
    if scheme == "file" and where:
        store: Store = FileStore(where, -1)  # of no known number of processes: the last to leave removes nothing
        store.set_timeout(limit)
    elif scheme == "tcp" and host and port.isdigit():
        try:
            store = TCPStore(host.strip("[]"), int(port), is_master=False, wait_for_workers=False, timeout=limit)
        except RuntimeError as error:  # DistNetworkError
            what = f"{address}: the store at {address.store} did not answer within {seconds(STORE_SECONDS)}"
            raise LinkTimeout(f"{what} ({reason_of(error)})") from None
    else:
        raise UserError(
            f"{address}: the two processes of a p2p link meet at a store, and '{address.store}' names none. "
            "Give file:///PATH on one host, or tcp://HOST:PORT of a store that another process hosts"
        )
    return store
