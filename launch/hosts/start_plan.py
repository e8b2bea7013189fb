"""`onward check --hosts`: where each process of a run would run, and the commands to give."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from launch.hosts.host_list import HostEntry, distribute, parse_hosts
from launch.hosts.launcher import check_for_ssh
from launch.plan.account import LinkAccount
from launch.prepare.placement import count_gpus
from launch.prepare.ranks import check_for_hosts
from launch.prepare.start_commands import (
    Endpoint,
    numbered_torchrun_commands,
    onward_command,
    ranks_by_host,
    shares,
    srun_command,
    torchrun_commands,
    what_is_even,
)
from pipeline.config import Config
from pipeline.errors import UserError
from workers.links.wire import in_address
from workers.run.out_of_memory import size_in_words
from workers.topology.processes import COORDINATOR, training_processes

NAMED = "HOST"
"""The hosts are called HOST1, HOST2, ... where the user gives only their number."""
MOST = 4096
"""Hosts; more is a slip of the finger."""


@dataclass(frozen=True)
class HostShare:
    """One host of a run.

    Args:
        name: of it.
        ranks: that run there.
        processes: their names, in the same order.
    """

    name: str
    ranks: tuple[int, ...]
    processes: tuple[str, ...]


@dataclass(frozen=True)
class StartPlan:
    """A run on several hosts.

    Args:
        hosts: in the order of their ranks; the coordinator runs on the first.
        torchrun: one command for all hosts, or one for each.
        slurm: the command in a job of Slurm.
        ssh: the command on any host; empty where `ssh_problem` says why not.
        ssh_problem: in a sentence.
        notes: sentences for the user.
    """

    _: KW_ONLY
    hosts: tuple[HostShare, ...]
    torchrun: tuple[str, ...]
    slurm: str
    ssh: str
    ssh_problem: str
    notes: tuple[str, ...]

    def to_message(self, links: Sequence[LinkAccount]) -> dict[str, Any]:
        """All of it for programs; arguments as `lines`."""
        shown = [{"host": host.name, "ranks": host.ranks, "processes": host.processes} for host in self.hosts]
        commands = {"torchrun": self.torchrun, "slurm": self.slurm, "ssh": self.ssh or None}
        between = [link.name for link in self.links_between(links)]
        return {"hosts": shown, "coordinator": self.hosts[0].name, "commands": commands, "links_between": between}

    def lines(self, links: Sequence[LinkAccount]) -> list[str]:
        """All of it as lines.

        Args:
            links: of the run; none if they are not known.
        """
        found = [f"on {len(self.hosts)} host{'s' if len(self.hosts) > 1 else ''}:"]
        for number, host in enumerate(self.hosts):
            named = [f"{rank}: {process}" for rank, process in zip(host.ranks, host.processes, strict=True)]
            found.append(f"  {host.name}  {', '.join([COORDINATOR] * (number == 0) + named)}")
        if between := self.links_between(links):
            amount = size_in_words(sum(link.bytes_per_step for link in between))
            ends = dict.fromkeys(f"{link.sender} -> {link.receiver}" for link in between)
            found.append(f"  between hosts {amount} a step: {', '.join(ends)}")
        everywhere = len(self.torchrun) == 1
        found.append(f"torchrun, on {'every host' if everywhere else 'each host its own'}:")
        names = [""] if everywhere else [f"{host.name}: " for host in self.hosts]
        found += [f"  {name}{command}" for name, command in zip(names, self.torchrun, strict=True)]
        found += ["Slurm, in a job or from the login node:", f"  {self.slurm}"]
        found += ["ssh, on any host:", f"  {self.ssh}"] if self.ssh else [f"ssh: {self.ssh_problem}"]
        return found + [f"note: {note}" for note in self.notes]

    def links_between(self, links: Sequence[LinkAccount]) -> list[LinkAccount]:
        """Those whose ends are on different hosts."""
        places = {process: host.name for host in self.hosts for process in host.processes}
        places[COORDINATOR] = self.hosts[0].name
        return [link for link in links if places[link.sender] != places[link.receiver]]


def start_plan(config: Config, hosts: str, arguments: Sequence[str]) -> StartPlan:
    """Where the processes of a run would run, and how it is started.

    Args:
        config: of the run.
        hosts: their number, or their names as `onward train --hosts` takes them.
        arguments: CONFIG, and what follows it on the command line.

    Raises:
        UserError: the run has fewer processes than there are hosts, or trains in one process; or no host is named.
        ConfigError: a value that only one host can have.
    """
    check_for_hosts(config, several=hosts.strip() != "1")
    processes = training_processes(config)
    entries, counts = _shares(hosts.strip(), len(processes))
    names = [platform.node() if entry.is_here else entry.target.rpartition("@")[2] for entry in entries]
    found = tuple(
        HostShare(name, tuple(ranks), tuple(processes[rank].name for rank in ranks))
        for name, ranks in zip(names, ranks_by_host(counts), strict=True)
    )
    in_order = hosts.strip().isdecimal() or names == sorted(names)
    commands = torchrun_commands if in_order else numbered_torchrun_commands
    endpoint = Endpoint(names[0], _run_id(config, arguments[0]))
    uneven, problem = len(set(counts)) > 1, ""
    listed = [_listed(entry, count) if uneven else entry.target for entry, count in zip(entries, counts, strict=True)]
    try:
        check_for_ssh(config)
    except UserError as error:
        problem = str(error)
    return StartPlan(
        hosts=found,
        torchrun=tuple(commands(counts, endpoint, arguments)),
        slurm=srun_command(counts, arguments),
        ssh="" if problem else onward_command(listed, arguments),
        ssh_problem=problem,
        notes=tuple(_notes(config, counts, names, in_order, hosts.strip().isdecimal())),
    )


def _shares(hosts: str, processes: int) -> tuple[list[HostEntry], list[int]]:
    if not hosts.isdecimal():
        entries = parse_hosts(hosts)
        return entries, distribute(entries, None, processes)
    count = int(hosts)
    if not 1 <= count <= MOST:
        raise UserError(f"--hosts: got {hosts}. Give a number of hosts from 1 to {MOST}, or their names: node1,node2")
    if count > processes:
        even = what_is_even(processes)
        can = f"Evenly it can run on {even}" if even else "It can run on one host"
        raise UserError(
            f"--hosts: this run has {processes} process{'es' if processes > 1 else ''}, fewer than {count} hosts. "
            f"{can}; more model.cuts, processes or replicas give more processes"
        )
    width = len(str(count))  # they are in the order of their names
    return [HostEntry(f"{NAMED}{number:0{width}d}") for number in range(1, count + 1)], shares(processes, count)


def _listed(entry: HostEntry, count: int) -> str:
    return f"{in_address(entry.target)}:{count}"


def _run_id(config: Config, config_file: str) -> str:
    return Path(config.run_dir if config.run_dir is not None else config_file).stem or "run"


def _notes(config: Config, counts: Sequence[int], names: Sequence[str], in_order: bool, numbered: bool) -> list[str]:
    notes = []
    if len(set(counts)) > 1:
        even = what_is_even(sum(counts))
        more = f"; evenly they run on {even}" if even else ""
        notes.append(f"{sum(counts)} processes cannot be divided evenly among {len(counts)} hosts{more}")
    if numbered and len(counts) > 1:
        notes.append(f"torchrun sorts hosts by name: {names[0]} is the first in this order, {names[1]} the second")
    elif not in_order:
        notes.append("torchrun sorts hosts by name, so each is given its number (--node-rank)")
    on_gpus = count_gpus() and any(config.stage(index).device != "cpu" for index in range(1, config.num_stages + 1))
    if on_gpus and len(counts) > 1:
        notes.append("devices are shown as if all were on this host; on several each takes the GPU of its number there")
    return notes
