"""Exchange of values between the ranks of torchrun through its key-value store, before any link exists."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from pipeline.errors import TrainingError, UserError, first_line
from workers.run.json_lines import parse_object
from workers.run.notice import notice_after

READ_SECONDS = 5.0
"""How long rank 0 waits for the others to read its last value, before it exits and takes the store with it."""
AGAIN_SECONDS = 0.1
"""Pause before an invalid value, or one that is missing, is read again."""
LOOK_SECONDS = 1.0
"""Between two looks whether a rank has left why it ended, where nothing else is read."""
FAILED = "failed"
"""The name under which a rank leaves why it cannot go on, before it ends."""
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

    def check(self, keys: list[str]) -> bool:
        """Whether all `keys` are set."""
        ...


class RankFailed(UserError):
    """Another rank has ended before training began, and has left why."""


class RanksApart(TrainingError):
    """The ranks have not come together: nothing was started, and another start may find them all."""


class RanksMissing(RanksApart):
    """Ranks were not heard of in time.

    Args:
        ranks: which.
        seconds: for how long.
    """

    def __init__(self, ranks: list[int], seconds: float) -> None:
        super().__init__(f"nothing was heard of rank {_listed(ranks)} within {seconds:g} s")
        self.ranks, self.seconds = ranks, seconds


@dataclass(frozen=True)
class RunGroup:
    """The ranks of torchrun, seen from this process.

    Args:
        rank, world_size: over all hosts.
        local_rank, local_world_size: on this host.
        store: of torchrun.
        own_address: by which this host reaches that of the store; empty if all ranks run on one.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    store: Store
    _: KW_ONLY
    own_address: str = ""

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

    def fail(self, problem: str, timeout: float = READ_SECONDS) -> None:
        """Leave for the others, which may wait for this rank, why it ends; the first that fails is heard.

        Args:
            problem: in a sentence, which names the host.
            timeout: rank 0, which may serve the store, waits so many seconds until every other has read it.
        """
        with suppress(RuntimeError, ValueError):  # the store has ended
            if not self.store.check([f"onward/{FAILED}"]):
                self.publish(FAILED, {"rank": self.rank, "problem": problem})
            if self.rank == 0:
                others = [self._read_by(FAILED, rank) for rank in range(1, self.world_size)]
                self.store.wait(others, timedelta(seconds=timeout))

    def failed(self) -> tuple[int, str] | None:
        """The rank that has left why it ended, and what it has left; None if none has."""
        if not self.store.check([f"onward/{FAILED}"]):
            return None
        value = parse_object(bytes(self.store.get(f"onward/{FAILED}"))) or {}
        rank, problem = value.get("rank"), value.get("problem")
        if not isinstance(rank, int) or not 0 <= rank < self.world_size or not isinstance(problem, str):
            return None  # somebody else has written it
        return rank, problem

    def failure_watch(self) -> Callable[[], None]:
        """To be called while this rank waits for another, however often.

        It raises `RankFailed` when a rank has left why it ended, `TrainingError` when the store has gone.
        """
        last = 0.0

        def look() -> None:
            nonlocal last
            if time.monotonic() - last < LOOK_SECONDS:
                return
            last = time.monotonic()
            try:
                self._raise_if_failed()
            except (RuntimeError, ValueError) as error:
                raise TrainingError(f"torchrun's store has ended, and with it rank 0 ({first_line(error)})") from None

        return look

    def _raise_if_failed(self) -> None:
        """Raises `RankFailed`."""
        if (failed := self.failed()) is not None and failed[0] != self.rank:
            self.store.set(self._read_by(FAILED, self.rank), "")
            raise RankFailed(failed[1])

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
            RankFailed: another rank has left why it ended.
        """
        deadline = time.monotonic() + timeout
        nothing = f"rank {self.rank} heard nothing of rank 0 within {timeout:g} s"
        while True:
            try:
                while not self.store.check([f"onward/{name}"]):
                    self._raise_if_failed()
                    if time.monotonic() > deadline:
                        raise TrainingError(nothing)
                    time.sleep(AGAIN_SECONDS)
                text = bytes(self.store.get(f"onward/{name}"))
            except (RuntimeError, ValueError) as error:
                raise TrainingError(nothing) from error
            value = parse_object(text)
            if value is not None and (valid := validate(value)) is not None:
                with suppress(RuntimeError):  # rank 0 has ended
                    self.store.set(self._read_by(name, self.rank), "")
                return valid
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"{nothing}, and something that was not of rank 0: somebody else writes to torchrun's store"
                )
            time.sleep(AGAIN_SECONDS)

    def gather(
        self, name: str, value: dict[str, Any], timeout: float, slow: Callable[[list[int]], None] = lambda missing: None
    ) -> list[dict[str, Any]]:
        """The values that all ranks give under `name`, by rank; every rank must call this.

        Args:
            name: of the values, not used before.
            value: of this rank.
            timeout: seconds to wait for the others.
            slow: called after some seconds with the ranks that are missing.

        Raises:
            RanksMissing: some have given none within `timeout`.
            RankFailed: one has left why it ended.
            TrainingError: the store has ended.
        """
        missing: list[int] = list(range(self.world_size))
        found: dict[int, dict[str, Any]] = {}
        deadline = time.monotonic() + timeout
        try:
            self.publish(f"{name}/{self.rank}", value)
            with notice_after(lambda: slow(list(missing))):
                while missing:
                    for rank in [each for each in missing if self.store.check([f"onward/{name}/{each}"])]:
                        given = parse_object(bytes(self.store.get(f"onward/{name}/{rank}")))
                        if given is not None:
                            found[rank] = given
                            missing.remove(rank)
                    if missing:
                        self._raise_if_failed()
                    if missing and time.monotonic() > deadline:
                        raise RanksMissing(missing, timeout)
                    time.sleep(AGAIN_SECONDS if missing else 0.0)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"torchrun's store has ended, and with it rank 0 ({first_line(error)[:200]})") from None
        return [found[rank] for rank in range(self.world_size)]

    def given(self, name: str) -> list[dict[str, Any]]:
        """What is there of what `gather` gathers under `name`, in the order of the ranks."""
        with suppress(RuntimeError, ValueError):  # the store has ended
            there = [n for rank in range(self.world_size) if self.store.check([n := f"onward/{name}/{rank}"])]
            values = [parse_object(bytes(self.store.get(each))) for each in there]
            return [value for value in values if value is not None]
        return []

    def leave(self, name: str, timeout: float = READ_SECONDS) -> None:
        """Tell rank 0 that this rank needs the store no more; rank 0, which may serve it, waits for the others."""
        others = [self._read_by(name, rank) for rank in range(1, self.world_size)]
        with suppress(RuntimeError, ValueError):  # somebody has ended
            if self.rank:
                self.store.set(self._read_by(name, self.rank), "")
            else:
                self.store.wait(others, timedelta(seconds=timeout))

    def wait_for_rank_0(self, limit: float) -> None:
        """Until rank 0 has ended, where it serves the store, or for `limit` seconds."""
        deadline = time.monotonic() + limit
        with suppress(RuntimeError, ValueError):  # the store has ended
            while time.monotonic() < deadline:
                self.store.check([f"onward/{FAILED}"])
                time.sleep(AGAIN_SECONDS)

    @staticmethod
    def _read_by(name: str, rank: int) -> str:
        return f"onward/{name}/read by {rank}"


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))
