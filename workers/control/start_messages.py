"""What every process is started with: one record per kind of process, sent as JSON and checked by the reader.

| record | written by | read by | travels over |
|---|---|---|---|
| `CoordinatorStart` | `onward train`, rank 0 of torchrun | the coordinator | its standard input |
| `StageStart` | `onward train` | a training process | its standard input |
| `Announcement` | rank 0 of torchrun | the other ranks | torchrun's store, signed |
| `FeedWorkerStart` | a feed | its worker process | its standard input |
| `ForkOrder` | `onward train` | the fork server | a socket, with open files beside it |
| `CommandStart` | a Python program (`onward.train`) | a command in a process of its own | its standard input |

`Announcement` is in `launch/processes/announcement.py`, with its signature.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from workers.control.validation import Count, Index, Seconds, read_message


class StartMessage:
    """What the records have in common."""

    def to_message(self) -> dict[str, Any]:
        """As it is sent: what JSON can hold."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # every subclass is a dataclass

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Self:
        """The inverse of `to_message`; raises `MalformedMessage`, which names the first field that is wrong."""
        return read_message(cls, message)


@dataclass(frozen=True, kw_only=True)
class CoordinatorStart(StartMessage):
    """For the coordinator of one attempt at a run.

    Args:
        run_dir: absolute path of the run directory.
        device: that the final evaluation runs on.
        start_step: first step to train; more than 0 continues from the snapshot after so many steps.
        parent: name of the process that started the coordinator, for the message when it dies.
        heartbeat_seconds: between two heartbeats to the parent; 0 sends none.
        private_dir: folder of the run's sockets and key, on one host; empty on several.
        host: address of this host, on several; empty on one.
        key: of the run, in hexadecimal, on several hosts.
        store: where process groups meet, on several hosts: `tcp://HOST:PORT`.
        apart: there are processes that do not see the run directory.
        hosts: name of the host of every training process, by rank; empty on one.
    """

    run_dir: str
    device: str
    start_step: Count
    parent: str
    heartbeat_seconds: Seconds = 0.0
    private_dir: str = ""
    host: str = ""
    key: str = field(default="", repr=False)
    store: str = ""
    apart: bool = False
    hosts: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StageStart(StartMessage):
    """For a training process on the host of `onward train`.

    Args:
        run_dir: absolute path of the run directory.
        private_dir: folder of the run's sockets and key.
        rank: of the process, from 0; decides which stages it trains.
        device: that they are trained on.
    """

    run_dir: str
    private_dir: str
    rank: Count
    device: str


@dataclass(frozen=True, kw_only=True)
class FeedWorkerStart(StartMessage):
    """For a worker process of a feed.

    Args:
        data: the section `data` of the configuration, as JSON text.
        num_views: of every image.
        seed: of the run.
        ring: descriptor of the shared memory that batches are made in, which the worker inherits.
        slot_bytes: of one slot of it.
        workers: that write to it.
        worker: number of this one, from 0.
        shared: descriptor of the data set, where it is handed over open.
        core: that the worker is pinned to, if any.
    """

    data: str
    num_views: Index
    seed: int
    ring: Count
    slot_bytes: Count
    workers: Index
    worker: Count
    shared: Count | None
    core: Count | None


@dataclass(frozen=True, kw_only=True)
class ForkOrder(StartMessage):
    """For the fork server: a process to start.

    Args:
        module: what the process runs, as `python -m` would.
        title: what `ps` shows.
        changes: variables of its environment that the server has not, or has with another value.
        gone: variables that the server has and the process must not have.
        streams: descriptors, as numbered in the server: standard input, output and error, the pipe of the answers,
            and what is only kept open. Not part of the JSON: the socket carries them.
    """

    module: str
    title: str
    changes: dict[str, str]
    gone: tuple[str, ...]
    streams: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CommandStart(StartMessage):
    """For a process that does for a Python program what the command line does.

    Args:
        command: `train`, `resume` or `evaluate`.
        parent: process ID of the program.
        config: the whole configuration as JSON text, for `train`.
        name: of the configuration, for `train`.
        notes: sentences for the user, of who read the configuration.
        run: the run directory, for `resume` and `evaluate`.
        overrides: `KEY=VALUE`, for `resume` and `evaluate`.
        force: as `--force`.
        trusted: as `--trust`.
    """

    command: Literal["train", "resume", "evaluate"]
    parent: Count
    config: str = field(default="", repr=False)
    name: str = ""
    notes: list[str] = field(default_factory=list)
    run: str = ""
    overrides: list[str] = field(default_factory=list, repr=False)
    force: bool = False
    trusted: bool = True
