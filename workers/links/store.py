"""The key-value store through which the two processes of a link find each other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta

from torch.distributed import FileStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from pipeline.errors import UserError, reason_of
from workers.links.base import LinkAddress, LinkTimeout, seconds

STORE_SECONDS = 30.0
"""Limit for every answer of the store."""

POLL_SECONDS = 0.02
_ADDRESS = "where"


class LinkStore:
    """The part of the run's store that belongs to one link, by a prefix of the keys.

    Args:
        address: of the link; its `store` is `file:///PATH` or `tcp://HOST:PORT`.

    Raises:
        UserError: the address of the store is neither.
        LinkTimeout: the store does not answer.
    """

    def __init__(self, address: LinkAddress) -> None:
        self._address, self._store = address, PrefixStore(f"onward/{address.name}", _open(address))

    def for_connection(self, nonce: str) -> Store:
        """A store for one connection of the link, which must not see the keys of earlier connections."""
        return PrefixStore(nonce, self._store)

    def publish_address(self, text: str) -> None:
        """Publish the address that the receiver listens on."""
        with self._store_errors():
            self._store.set(_ADDRESS, text)

    def withdraw_address(self) -> None:
        """Remove the address: the receiver no longer listens."""
        with self._store_errors():
            self._store.delete_key(_ADDRESS)

    def wait_for_address(self, deadline: float) -> str:
        """The address that the receiver listens on; raises `TimeoutError` if there is none by `deadline`."""
        with self._store_errors():
            while not self._store.check([_ADDRESS]):
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{self._address.receiver} has not said where it listens")
                time.sleep(POLL_SECONDS)
            return bytes(self._store.get(_ADDRESS)).decode()

    @contextlib.contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            problem = f"{self._address}: the store at {self._address.store} does not answer"
            raise LinkTimeout(f"{problem} ({reason_of(error)})") from None


def _open(address: LinkAddress) -> Store:
    scheme, _, location = address.store.partition("://")
    host, _, port = location.rpartition(":")
    limit = timedelta(seconds=STORE_SECONDS)
    if scheme == "file" and location:
        store: Store = FileStore(location, -1)  # of any number of processes: the last to leave must not remove it
        store.set_timeout(limit)
    elif scheme == "tcp" and host and port.isdigit():
        try:
            store = TCPStore(host.strip("[]"), int(port), is_master=False, wait_for_workers=False, timeout=limit)
        except RuntimeError as error:  # DistNetworkError
            problem = f"{address}: the store at {address.store} did not answer within {seconds(STORE_SECONDS)}"
            raise LinkTimeout(f"{problem} ({reason_of(error)})") from None
    else:
        raise UserError(
            f"{address}: the two processes of a p2p link meet at a store, and '{address.store}' names none. "
            "Give file:///PATH on one host, or tcp://HOST:PORT of a store that another process hosts"
        )
    return store
