"""Interfaces, the own name, and a port of this host."""

from __future__ import annotations

import ipaddress
import platform
from collections.abc import Mapping, Sequence

from launch.doctor.findings import Finding
from launch.prepare.ports import addresses_of
from pipeline.config.network import NetworkConfig
from workers.topology.network import ProbeListener, addresses_by_interface, candidates, interface_of, reach, reason


def names() -> list[Finding]:
    """Every line about this host."""
    found, by_interface = candidates(NetworkConfig(), None), addresses_by_interface()
    return [
        interfaces(by_interface, found, interface_of(found[0]) if found else None),
        own_name(platform.node(), addresses_of(platform.node()), found),
        port(found[0] if found else "127.0.0.1"),
    ]


def interfaces(by_name: Mapping[str, Sequence[str]], chosen: Sequence[str], interface: str | None) -> Finding:
    """The interfaces with an address, and by which one other hosts would be told to come.

    Args:
        by_name: addresses of every interface.
        chosen: what `candidates` gives, the likeliest first.
        interface: that has the first of them.
    """
    listed = ", ".join(f"{name} {' '.join(found)}" for name, found in by_name.items() if found)
    if not chosen:
        remedy = "Connect it to a network, if it is to train together with other hosts; alone it can train as it is"
        return Finding("interfaces", f"{listed or 'none'}: no other host reaches this one", remedy)
    more = f", then {', '.join(chosen[1:4])}" if chosen[1:] else ""
    return Finding("interfaces", f"{listed}; others are told {chosen[0]} ({interface}) first{more}")


def own_name(name: str, addresses: Sequence[str], own: Sequence[str]) -> Finding:
    """What the own name stands for.

    Args:
        name: of this host.
        addresses: that it resolves to.
        own: addresses by which others may reach this host.
    """
    if not addresses:
        remedy = "Onward finds addresses by itself; torchrun does not. For it add the names to /etc/hosts on every host"
        return Finding("own name", f"'{name}' does not resolve", remedy)
    text = f"'{name}' is {', '.join(addresses)}"
    if all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses):
        return Finding("own name", f"{text}, which leads other hosts to themselves; Onward does not go by it")
    if not set(addresses) & set(own):
        remedy = "The name belongs to another host, or the address has changed. Correct /etc/hosts or the DNS"
        return Finding("own name", f"{text}, and this host has no such address", remedy)
    return Finding("own name", text)


def port(address: str) -> Finding:
    """Whether a program here is reached at a port that the system chooses, by the address that others are told."""
    with ProbeListener([address]) as listener:
        try:
            reach(address, listener.port, listener.token)
        except OSError as error:
            remedy = "Open the ports of this host for this host (firewall); a run uses any that is free"
            return Finding.problem("ports", reason(error, address, listener.port), remedy)
        return Finding("ports", f"a free one was had and reached at {address} ({listener.port})")
