"""Exchange of values between the ranks of torchrun through its key-value store, before any link exists."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from torch.distributed.rendezvous import rendezvous

from pipeline.errors import TrainingError, UserError, first_line, reason_of
from workers.run.environment import launcher
from workers.run.json_lines import parse_object
from workers.run.notice import notice_after
from workers.topology.network import wait_for_port

READ_SECONDS = 5.0
"""How long rank 0 waits for the others to read its last value, before it exits and takes the store with it."""
AGAIN_SECONDS = 0.1
"""Pause before an invalid value, or one that is missing, is read again."""
SILENT_SECONDS = 10.0
"""How long the host of torchrun's store may not answer, or its name not resolve."""
REFUSED_SECONDS = 15.0
"""How long nobody may listen there, if torchrun itself serves the store and so has started before its ranks."""
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
            TrainingError: a rank has given none within `timeout`, or the store has ended.
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
                    if missing and time.monotonic() > deadline:
                        raise TrainingError(f"nothing was heard of rank {_listed(missing)} within {timeout:g} s")
                    time.sleep(AGAIN_SECONDS if missing else 0.0)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"torchrun's store has ended, and with it rank 0 ({first_line(error)[:200]})") from None
        return [found[rank] for rank in range(self.world_size)]

    def leave(self, name: str, timeout: float = READ_SECONDS) -> None:
        """Tell rank 0 that this rank needs the store no more; rank 0, which may serve it, waits for the others."""
        others = [self._read_by(name, rank) for rank in range(1, self.world_size)]
        with suppress(RuntimeError, ValueError):  # somebody has ended
            if self.rank:
                self.store.set(self._read_by(name, self.rank), "")
            else:
                self.store.wait(others, timedelta(seconds=timeout))

    @staticmethod
    def _read_by(name: str, rank: int) -> str:
        return f"onward/{name}/read by {rank}"


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join_group(timeout: float, say: Callable[[str], None] = lambda sentence: None) -> RunGroup:
    """Connect to the store of torchrun.

    Args:
        timeout: seconds.
        say: tells the user what is waited for.

    Raises:
        UserError: the host of the store is not known here, or does not answer.
        TrainingError: the store cannot be reached within `timeout` seconds.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local, local_world = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    several = world_size != local_world
    own = _await_store(REFUSED_SECONDS if by_torchrun else timeout, say) if several and (rank or by_torchrun) else ""
    try:
        store, rank, world_size = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
    except (RuntimeError, ValueError) as error:
        if launcher() != "srun":
            raise TrainingError(f"torchrun's store cannot be reached ({first_line(error)[:300]})") from error
        at = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise TrainingError(
            f"the ranks do not meet at {at} ({reason_of(error)}). See whether one has failed to start; "
            "MASTER_ADDR and MASTER_PORT in the environment of srun name another place"
        ) from error
    if several and not own:  # this rank serves the store
        own = _await_store(timeout, say)
    return RunGroup(rank, world_size, local, local_world, store, own_address=own)


def _await_store(refused: float, say: Callable[[str], None]) -> str:
    """The own address of a connection to the store; raises `UserError`."""
    host, port, here = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), socket.gethostname()
    first = f"the first host, which {launcher()} calls '{host}'"
    try:
        with notice_after(lambda: say(f"{here} waits for {first}, port {port}")):
            return wait_for_port(host, port, refused, SILENT_SECONDS)
    except socket.gaierror as error:
        raise UserError(
            f"{first}: the name does not resolve on {here} ({error.strerror}). Add it to /etc/hosts on every host, or "
            f"{_another_address()}"
        ) from None
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise UserError(
            f"{here} does not reach {first}, at port {port} ({why}). Open the ports between the hosts, or "
            f"{_another_address()}"
        ) from None


def _another_address() -> str:
    """How the user names the first host in another way."""
    if launcher() == "srun":
        return "set MASTER_ADDR, in the environment of srun, to an address of the first host that every host reaches"
    return (
        "give torchrun an address of the first host that every host reaches: --local-addr=ADDRESS there, or "
        "--master-addr=ADDRESS on every host"
    )


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))
