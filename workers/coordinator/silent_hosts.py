"""Whole hosts that are silent, among processes that are: one cause for all processes of a host."""

from __future__ import annotations

from collections.abc import Mapping

from workers.control.failures import FailureReport

SHOWN = 6
"""Processes that a message names."""
SILENT_SECONDS = 5.0
"""No heartbeat of any process of a host for so long explains a link that has broken; one comes every second."""


def on_host(name: str, hosts: Mapping[str, str]) -> str:
    """A process with its host, if that is known."""
    return f"{name} on {hosts[name]}" if name in hosts else name


def not_connected(missing: list[str], hosts: Mapping[str, str], seconds: float) -> FailureReport:
    """The failure of a run of which some processes have not connected to the coordinator.

    Args:
        missing: their names.
        hosts: of all processes; none on one host.
        seconds: that they were waited for.
    """
    named = ", ".join(on_host(name, hosts) for name in missing[:SHOWN])
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    cause = f"{named}{more} did not connect to the coordinator within {seconds:g} s: see logs/ of its process"
    return FailureReport("coordinator", None, "bad_input" if hosts else "timeout", cause)


def silent_host(hosts: Mapping[str, str], silences: Mapping[str, float], least: float) -> str | None:
    """A host other than the coordinator's all of whose processes have been silent for `least` seconds.

    Args:
        hosts: of every process, in the order of the ranks; the coordinator is on the first.
        silences: seconds since the last message of every process that is watched.
        least: seconds.
    """
    first = next(iter(hosts.values()), None)
    for host in dict.fromkeys(hosts.values()):
        own = [silences[name] for name in hosts if hosts[name] == host and name in silences]
        if host != first and own and min(own) >= least:
            return host
    return None


def behind_it(failure: FailureReport, hosts: Mapping[str, str], silences: Mapping[str, float]) -> FailureReport | None:
    """The loss of a host, if that is behind the failure of a link; arguments as `unreachable`."""
    if failure.kind not in ("lost_neighbour", "timeout"):
        return None
    return unreachable(hosts, silences, SILENT_SECONDS, failure.step)


def unreachable(
    hosts: Mapping[str, str], silences: Mapping[str, float], least: float, step: int | None
) -> FailureReport | None:
    """The failure of a run that has lost a host; None if no whole host is silent.

    Args:
        hosts, silences, least: as `silent_host`.
        step: that was worked on.
    """
    host = silent_host(hosts, silences, least)
    if host is None:
        return None
    first = next(iter(hosts.values()))
    away: dict[str, list[str]] = {}
    for name, other in hosts.items():
        if other != first and name in silences:
            away.setdefault(other, []).append(name)
    nothing = f"no sign of life for {min(silences[name] for name in away[host]):.0f} s (hang_timeout)"
    if len(away) > 1 and all(silences[name] >= least for names in away.values() for name in names):
        names = [name for own in away.values() for name in own]
        cause = f"no other host is reachable from {first}, which is cut off: {nothing} of {', '.join(away)}"
    elif len(names := away[host]) == 1:
        cause = f"host {host} is unreachable: {nothing} of its only process; that or the host is stopped or cut off"
    else:
        cause = f"host {host} is unreachable: {nothing} of any process there; it is stopped or cut off"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return FailureReport(f"{', '.join(names[:SHOWN])}{more}", step, "hung", cause)
