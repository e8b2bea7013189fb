"""How the processes that torchrun started meet: a small key-value store, before any link exists."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from torch.distributed.rendezvous import rendezvous

from pipeline.errors import TrainingError

READ_SECONDS = 5.0
"""For the other ranks, which are waiting for it, to read a last word."""


AGAIN_SECONDS = 0.1
"""Before a second look at what could not be believed."""
T = TypeVar("T")


class Store(Protocol):
    """The part of torch's key-value stores that is used here."""

    def set(self, key: str, value: str) -> None:
        """Keep `value` under `key`."""
        ...

    def get(self, key: str) -> bytes:
        """What is kept under `key`."""
        ...

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        """Until all `keys` are there; raises when the time is over."""
        ...


@dataclass(frozen=True)
class RunGroup:
    """This process among those that torchrun started.

    Args:
        rank, world_size: among all hosts.
        local_rank, local_world_size: on this host.
        store: torchrun's.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    store: Store

    @property
    def on_one_host(self) -> bool:
        """Whether all processes are here."""
        return self.world_size == self.local_world_size

    def publish(self, name: str, value: dict[str, Any]) -> None:
        """Let every process look up `value` under `name`."""
        self.store.set(f"onward/{name}", json.dumps(value))

    def publish_last(self, name: str, value: dict[str, Any], timeout: float = READ_SECONDS) -> None:
        """As `publish`, and wait until every other rank has looked it up: the store may end with this process."""
        self.publish(name, value)
        others = [self._read_by(name, rank) for rank in range(self.world_size) if rank != self.rank]
        if others:
            with suppress(RuntimeError, ValueError):  # one of them has ended
                self.store.wait(others, timedelta(seconds=timeout))

    def look_up(self, name: str, timeout: float) -> dict[str, Any]:
        """What was published under `name`; raises `TrainingError` if nothing is after `timeout` seconds."""
        return self.look_up_until(name, timeout, lambda value: value)

    def look_up_until(self, name: str, timeout: float, believe: Callable[[dict[str, Any]], T | None]) -> T:
        """As `look_up`, again and again until `believe` makes something of it: anybody may have written there first.

        Raises:
            TrainingError: that has not happened after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            try:
                self.store.wait([f"onward/{name}"], timedelta(seconds=left))
                text = bytes(self.store.get(f"onward/{name}"))
            except (RuntimeError, ValueError) as error:
                raise TrainingError(f"rank {self.rank} heard nothing of rank 0 within {timeout:g} s") from error
            value = _object(text)
            if value is not None and (believed := believe(value)) is not None:
                with suppress(RuntimeError):  # rank 0 has ended
                    self.store.set(self._read_by(name, self.rank), "")
                return believed
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"rank {self.rank} heard nothing of rank 0 within {timeout:g} s, and something that was not of "
                    f"rank 0: somebody else writes to torchrun's store"
                )
            time.sleep(AGAIN_SECONDS)

    @staticmethod
    def _read_by(name: str, rank: int) -> str:
        return f"onward/{name}/read by {rank}"


def _object(text: bytes) -> dict[str, Any] | None:
    """A JSON object; None for anything else, which is not of a rank."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def under_torchrun() -> bool:
    """Whether this process was started by torchrun."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join_group(timeout: float) -> RunGroup:
    """Meet the other processes.

    Raises:
        TrainingError: the store cannot be reached within `timeout` seconds.
    """
    try:
        store, rank, world_size = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"torchrun's store cannot be reached ({error})") from error
    local = int(os.environ.get("LOCAL_RANK", rank))
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return RunGroup(rank, world_size, local, local_world, store)
