"""The commands that start a run on several hosts, and which of its processes then run on which host.

torchrun numbers the hosts by their names, Slurm by its list of nodes, `onward train --hosts` as they are listed there.
Ranks go to the hosts in this order, so neighbouring stages are on one host.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from workers.links.wire import in_address

PORT = 29400
"""At which torchrun's agents meet, as it has it by default."""
MODULE = "launch.train"


@dataclass(frozen=True)
class Endpoint:
    """How the agents of torchrun find each other.

    Args:
        host: name or address of the first host.
        run_id: the same on all of them.
        port: at which the first listens.
    """

    host: str
    run_id: str
    port: int = PORT


def shares(processes: int, hosts: int) -> list[int]:
    """How many processes each host gets: evenly, the first ones one more where that leaves a rest."""
    each, rest = divmod(processes, hosts)
    return [each + (number < rest) for number in range(hosts)]


def ranks_by_host(counts: Sequence[int]) -> list[range]:
    """The ranks of each host, from the number of its processes."""
    ends = [0, *accumulate(counts)]
    return [range(first, end) for first, end in pairwise(ends)]


def even_numbers_of_hosts(processes: int) -> list[int]:
    """The numbers of hosts, from 2 on, of which each gets the same number of processes."""
    return [hosts for hosts in range(2, processes + 1) if processes % hosts == 0]


def what_is_even(processes: int) -> str:
    """The same in words: `2 hosts (3 each) or 3 hosts (2 each)`; empty for one process."""
    *most, last = [f"{hosts} hosts ({processes // hosts} each)" for hosts in even_numbers_of_hosts(processes)] or [""]
    return f"{', '.join(most)} or {last}" if most else last


def torchrun_commands(counts: Sequence[int], endpoint: Endpoint, arguments: Sequence[str]) -> list[str]:
    """One command for all hosts where they have equally many processes, else one for each host, in order.

    Args:
        counts: processes of each host.
        endpoint: where the agents of torchrun meet.
        arguments: CONFIG, and what follows it.
    """
    at = f"--rdzv-endpoint={in_address(endpoint.host)}:{endpoint.port}"
    meet = f"--rdzv-backend=c10d --rdzv-id={shlex.quote(endpoint.run_id)} {at}"
    each = counts if len(set(counts)) > 1 else counts[:1]
    ends = f"{meet} -m {MODULE} {shlex.join(arguments)}"
    return [f"torchrun --nnodes={len(counts)} --nproc-per-node={count} {ends}" for count in each]


def numbered_torchrun_commands(counts: Sequence[int], endpoint: Endpoint, arguments: Sequence[str]) -> list[str]:
    """One command for each host, which gives it its number: for hosts that are not in the order of their names."""
    meet = f"--master-addr={endpoint.host} --master-port={endpoint.port} -m {MODULE} {shlex.join(arguments)}"
    return [
        f"torchrun --nnodes={len(counts)} --node-rank={number} --nproc-per-node={count} {meet}"
        for number, count in enumerate(counts)
    ]


def srun_command(counts: Sequence[int], arguments: Sequence[str]) -> str:
    """The same under Slurm, which does not put more on a node than the largest share.

    Args:
        counts: processes of each host.
        arguments: CONFIG, and what follows it.
    """
    numbers = f"--nodes={len(counts)} --ntasks={sum(counts)} --ntasks-per-node={max(counts)}"
    return f"srun {numbers} python -m {MODULE} {shlex.join(arguments)}"


def onward_command(hosts: Sequence[str], arguments: Sequence[str]) -> str:
    """The same by ssh.

    Args:
        hosts: as `--hosts` lists them.
        arguments: CONFIG, and what follows it.
    """
    return f"onward train {shlex.join(arguments)} --hosts {shlex.quote(','.join(hosts))}"
