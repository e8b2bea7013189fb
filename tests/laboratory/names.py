"""How the hosts are called, and what every name resolves to on each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Names = Literal["good", "debian", "container", "none", "v6", "two"]
"""What a host knows of names:

| kind | the own name resolves to | names of others resolve to |
|---|---|---|
| `good` | its address | their addresses |
| `debian` | 127.0.1.1, as the installers of Debian and Ubuntu write it | their addresses |
| `container` | 127.0.0.1 | their addresses |
| `none` | nothing | nothing |
| `v6` | its address in IPv6; there is no IPv4 but loopback | their addresses in IPv6 |
| `two` | the address of `eth1`, which leads nowhere and has the default route | their addresses on `eth0` |
"""
LOOPBACK = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]


def name_of(host: int) -> str:
    """The name of a host, counted from 1."""
    return f"node{host}"


def address_of(host: int, names: Names) -> str:
    """The address by which others reach a host."""
    return f"fd77::{host}" if names == "v6" else f"10.77.0.{host}"


def dead_address_of(host: int) -> str:
    """The address on the interface that leads nowhere."""
    return f"10.78.0.{host}"


def hosts_file(host: int, hosts: Sequence[int], names: Names) -> str:
    """The content of `/etc/hosts` on one of the hosts."""
    if names == "none":
        return "\n".join(LOOPBACK) + "\n"
    known = {other: address_of(other, names) for other in hosts}
    own = {"debian": "127.0.1.1", "container": "127.0.0.1", "two": dead_address_of(host)}
    known[host] = own.get(names, known[host])
    return "\n".join([*LOOPBACK, *(f"{address} {name_of(other)}" for other, address in known.items())]) + "\n"
