"""What the launcher and the program on a host say to each other: JSON objects, one a line, over ssh.

    launcher                                    host
                                         <----  HostFacts
    Listen (to the first) or Reach       ---->
                                         <----  Listening or Ways      several hosts only
    StartRanks                           ---->
                                         <----  what the ranks print
    StopRanks, or the end of the input   ---->  ends the ranks

What a host answers begins with `MARKER`: shells print greetings to the same stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from workers.control.start_messages import StartMessage
from workers.control.validation import Count, Seconds

MARKER = "onward-host "


@dataclass(frozen=True, kw_only=True)
class HostFacts(StartMessage):
    """A host as it presents itself.

    Args:
        name: by which it calls itself.
        onward: version of Onward.
        gpus: that may be used.
    """

    name: str
    onward: str
    gpus: Count


@dataclass(frozen=True, kw_only=True)
class Listen(StartMessage):
    """For the first host: answer probes, and say where the ranks may meet.

    Args:
        interface: that the user has named; empty if none.
    """

    interface: str = ""


@dataclass(frozen=True, kw_only=True)
class Listening(StartMessage):
    """Where the first host answers.

    Args:
        addresses: by which others may reach it, the likeliest first.
        port: where it answers probes.
        token: that it answers them with.
        free_port: for the ranks.
        problem: why it cannot; empty if it can.
    """

    addresses: list[str] = field(default_factory=list)
    port: Count = 0
    token: str = ""
    free_port: Count = 0
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Reach(StartMessage):
    """For the other hosts: try these addresses of the first; fields as in `Listening`."""

    addresses: list[str]
    port: Count
    token: str


@dataclass(frozen=True, kw_only=True)
class Ways(StartMessage):
    """What a host has found out about the first.

    Args:
        reached: addresses that answered.
        unreached: why the others did not.
    """

    reached: list[str]
    unreached: list[str]


@dataclass(frozen=True, kw_only=True)
class StartRanks(StartMessage):
    """The ranks that a host is to start, `first_rank` and the following.

    Args:
        first_rank, count, world_size: numbers of processes.
        address, port: where all ranks meet.
        key: of the run, in hexadecimal.
        arguments: of `launch.train`.
        leave_seconds: after the ranks were asked to stop, until they are killed.
    """

    first_rank: Count
    count: Count
    world_size: Count
    address: str
    port: Count
    key: str = field(repr=False)
    arguments: list[str]
    leave_seconds: Seconds


@dataclass(frozen=True, kw_only=True)
class StopRanks(StartMessage):
    """Ask the ranks to stop, and kill them after so many seconds."""

    seconds: Seconds
