"""What two hosts find out about each other: versions, clocks, the way between them, the run directory."""

from __future__ import annotations

from dataclasses import dataclass, field

from launch.doctor.findings import Finding, Text
from launch.processes.presence import MarkName, Presence, differences_from_first
from workers.control.start_messages import StartMessage
from workers.control.validation import Count

MIB = 2**20
HOSTS_PAGE = "deploy/hosts.md"
CLOCK_SECONDS, CLOCK_WRONG = 1.0, 60.0
SLOW = 100 * 1e6
"""Bytes per second of a network of 1 Gbit/s, about."""
FIREWALL = "Open all ports between the hosts (firewall)"


@dataclass(frozen=True, kw_only=True)
class OtherHost(StartMessage):
    """One host, as the other sees it.

    Args:
        host: its name.
        versions: as of `own_versions`.
        addresses: by which it may be reached, the likeliest first.
        port, token: of its probes.
        folder: where it would keep runs.
        mark: name of the file that it has written there; empty if it could not.
    """

    host: Text
    versions: dict[str, Text]
    addresses: list[Text] = field(default_factory=list)
    port: Count = 0
    token: Text = ""
    folder: Text = ""
    mark: MarkName = ""


def same_versions(here: OtherHost, there: OtherHost) -> Finding:
    """What a run would be refused for."""
    first = Presence(rank=0, host=here.host, versions=here.versions)
    problems = differences_from_first([first, Presence(rank=1, host=there.host, versions=there.versions)])
    if problems:
        text = problems[0].text.strip().replace("rank 0 on ", "")
        return Finding.problem("versions", f"{there.host} {text}", problems[0].remedy)
    return Finding("versions", f"the same on {here.host} and {there.host}")


def clock(offset: float, uncertainty: float, here: str, there: str) -> Finding:
    """How far the clocks are apart, in seconds: that of the other host less ours, and how exactly that is known."""
    apart = max(abs(offset) - uncertainty, 0.0)
    if apart <= CLOCK_SECONDS:
        return Finding("clock", f"the clocks of {here} and {there} agree within a second")
    way = "ahead of" if offset > 0 else "behind"
    text = f"the clock of {there} is {abs(offset):.0f} s {way} that of {here}"
    remedy = "Times in files and logs will not match. Turn on time synchronisation: timedatectl set-ntp true"
    return Finding("clock", text, remedy, wrong=apart > CLOCK_WRONG)


def way(here: str, there: str, reached: dict[str, str], unreached: list[str]) -> Finding:
    """By which addresses one host reaches the other.

    Args:
        here, there: their names.
        reached: own address by each address of the other that answered.
        unreached: why others did not.
    """
    if not reached:
        why = "; ".join(unreached) or "it has no address"
        remedy = f"{FIREWALL}, or name the interface between them: network.interface=NAME"
        return Finding.problem("way", f"{here} cannot connect to a free port of {there} ({why})", remedy)
    dead = f"; not by {'; '.join(unreached)}" if unreached else ""
    return Finding("way", f"{here} reaches {there} by {', '.join(reached)}{dead}")


def speed(bytes_per_second: float, round_trip: float) -> Finding:
    """How fast one connection is."""
    text = f"{bytes_per_second / 1e6:,.0f} MB/s over one connection, round trip {round_trip * 1e3:.1f} ms"
    if bytes_per_second >= SLOW:
        return Finding("speed", text)
    remedy = "'onward check CONFIG' says how many bytes a step sends over each link: is that less than its time allows?"
    return Finding("speed", text, remedy)


def shared(seen: bool, here: OtherHost, there: OtherHost) -> Finding:
    """Whether both see the same folder."""
    if seen:
        return Finding("runs", f"{there.host} sees the file that {here.host} has written to '{here.folder}'")
    text = f"'{there.folder}' of {there.host} is another folder than '{here.folder}' of {here.host}"
    remedy = (
        f"A run sends what it saves to the first host then ({HOSTS_PAGE}), and goes on only with the same first host. "
        "To have it on both, mount the same folder, and give a folder in it: run_dir=FOLDER"
    )
    return Finding("runs", text, remedy)
