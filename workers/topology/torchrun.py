"""Exchange of values between the ranks of torchrun through its key-value store, before any link exists."""

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

from pipeline.errors import TrainingError, reason_of
from workers.run.environment import launcher
from workers.run.json_lines import parse_object

READ_SECONDS = 5.0
"""How long rank 0 waits for the others to read its last value, before it exits and takes the store with it."""
AGAIN_SECONDS = 0.1
"""Pause before an invalid value is read again."""
T = TypeVar("T")


class Store(Protocol):
    """The methods of torch.distributed's stores that are used here."""

    def set(self, key: str, value: str) -> None:
        """Set the value of `key`."""
        ...

    def get(self, key: str) -> bytes:
        """The value of `key`."""
        ...

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        """Wait until all `keys` are set; raises after `timeout`."""
        ...


@dataclass(frozen=True)
class RunGroup:
    """The ranks of torchrun, seen from this process.

    Args:
        rank, world_size: over all hosts.
        local_rank, local_world_size: on this host.
        store: of torchrun.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    store: Store

    @property
    def on_one_host(self) -> bool:
        """Whether all ranks run on this host."""
        return self.world_size == self.local_world_size

    def publish(self, name: str, value: dict[str, Any]) -> None:
        """Make `value` available to all ranks under `name`."""
        self.store.set(f"onward/{name}", json.dumps(value))

    def publish_last(self, name: str, value: dict[str, Any], timeout: float = READ_SECONDS) -> None:
        """As `publish`, and wait until every other rank has read it: the store may end with this process."""
        self.publish(name, value)
        others = [self._read_by(name, rank) for rank in range(self.world_size) if rank != self.rank]
        if others:
            with suppress(RuntimeError, ValueError):  # one of them has ended
                self.store.wait(others, timedelta(seconds=timeout))

    def look_up(self, name: str, timeout: float) -> dict[str, Any]:
        """The value published under `name`; raises `TrainingError` if there is none after `timeout` seconds."""
        return self.look_up_valid(name, timeout, lambda value: value)

    def look_up_valid(self, name: str, timeout: float, validate: Callable[[dict[str, Any]], T | None]) -> T:
        """Read the value under `name` until `validate` accepts it: others who reach the store may write there, too.

        Args:
            name: of the value.
            timeout: seconds.
            validate: turns the value into the result; None rejects it.

        Raises:
            TrainingError: no value was accepted within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            try:
                self.store.wait([f"onward/{name}"], timedelta(seconds=left))
                text = bytes(self.store.get(f"onward/{name}"))
            except (RuntimeError, ValueError) as error:
                raise TrainingError(f"rank {self.rank} heard nothing of rank 0 within {timeout:g} s") from error
            value = parse_object(text)
            if value is not None and (valid := validate(value)) is not None:
                with suppress(RuntimeError):  # rank 0 has ended
                    self.store.set(self._read_by(name, self.rank), "")
                return valid
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"rank {self.rank} heard nothing of rank 0 within {timeout:g} s, and something that was not of "
                    f"rank 0: somebody else writes to torchrun's store"
                )
            time.sleep(AGAIN_SECONDS)

    @staticmethod
    def _read_by(name: str, rank: int) -> str:
        return f"onward/{name}/read by {rank}"


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join_group(timeout: float) -> RunGroup:
    """Connect to the store of torchrun.

    Raises:
        TrainingError: the store cannot be reached within `timeout` seconds.
    """
    try:
        store, rank, world_size = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
    except (RuntimeError, ValueError) as error:
        if launcher() != "srun":
            raise TrainingError(f"torchrun's store cannot be reached ({error})") from error
        at = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise TrainingError(
            f"the ranks do not meet at {at} ({reason_of(error)}). See whether one has failed to start; "
            "MASTER_ADDR and MASTER_PORT in the environment of srun name another place"
        ) from error
    local = int(os.environ.get("LOCAL_RANK", rank))
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return RunGroup(rank, world_size, local, local_world, store)
