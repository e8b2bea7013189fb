"""`onward check --hosts`: where each process would run, and the commands that put it there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch.hosts import start_plan as module
from launch.hosts.start_plan import StartPlan, start_plan
from launch.plan.links import link_accounts
from launch.prepare.link_kind import with_link
from launch.prepare.placement import place
from launch.prepare.start_commands import (
    Endpoint,
    even_numbers_of_hosts,
    ranks_by_host,
    shares,
    torchrun_commands,
    what_is_even,
)
from pipeline.config import Config
from pipeline.errors import UserError

MEET = "--rdzv-backend=c10d --rdzv-id=c --rdzv-endpoint=HOST1:29400 -m launch.train c.yaml"


def planned(hosts: str, **values: Any) -> StartPlan:
    return start_plan(Config.model_validate(values), hosts, ["c.yaml"])


def placed(plan: StartPlan) -> dict[str, dict[int, str]]:
    return {host.name: dict(zip(host.ranks, host.processes, strict=True)) for host in plan.hosts}


def test_as_many_on_every_host_is_one_command() -> None:
    plan = planned("2")
    assert placed(plan) == {"HOST1": {0: "stage 1", 1: "stage 2"}, "HOST2": {2: "stage 3", 3: "stage 4"}}
    assert plan.torchrun == (f"torchrun --nnodes=2 --nproc-per-node=2 {MEET}",)
    assert plan.slurm == "srun --nodes=2 --ntasks=4 --ntasks-per-node=2 python -m launch.train c.yaml"
    assert plan.ssh == "onward train c.yaml --hosts HOST1,HOST2"


def test_replicas_are_processes_of_their_own_and_stages_may_share_one() -> None:
    plan = planned("2", processes=2)
    assert placed(plan) == {"HOST1": {0: "stages 1-2"}, "HOST2": {1: "stages 3-4"}}
    uneven = planned("2", stages={2: {"replicas": 2}})
    assert placed(uneven) == {
        "HOST1": {0: "stage 1", 1: "stage 2 replica 1", 2: "stage 2 replica 2"},
        "HOST2": {3: "stage 3", 4: "stage 4"},
    }


def test_where_hosts_have_different_numbers_each_has_its_command_and_what_is_even_is_said() -> None:
    plan = planned("2", stages={2: {"replicas": 2}, 3: {"replicas": 2}})
    assert [len(host.ranks) for host in plan.hosts] == [3, 3]
    plan = planned("4", stages={2: {"replicas": 2}, 3: {"replicas": 2}})
    assert [len(host.ranks) for host in plan.hosts] == [2, 2, 1, 1]
    assert [re.search(r"--nproc-per-node=\d", command)[0] for command in plan.torchrun] == [  # type: ignore[index]
        f"--nproc-per-node={count}" for count in (2, 2, 1, 1)
    ]
    assert plan.ssh.endswith("--hosts HOST1:2,HOST2:2,HOST3:1,HOST4:1")
    assert plan.notes[0] == (
        "6 processes cannot be divided evenly among 4 hosts; evenly they run on 2 hosts (3 each), 3 hosts (2 each) or "
        "6 hosts (1 each)"
    )


def test_more_hosts_than_processes_are_refused_with_what_can_be() -> None:
    with pytest.raises(
        UserError, match=r"has 4 processes, fewer than 5 hosts\. Evenly .* 2 hosts \(2 each\) or 4 host"
    ):
        planned("5")
    for wrong in ("0", "99999", ""):
        with pytest.raises(UserError, match="--hosts"):
            planned(wrong)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"runtime": "serial"}, "trains in one process"),
        ({"link": {"kind": "queue"}}, "shared memory"),
        ({"restart": "stage"}, "torchrun restarts all"),
    ],
)
def test_what_several_hosts_cannot_have_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        planned("2", **values)


def test_hosts_that_have_names_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.platform, "node", lambda: "zebra")
    plan = planned("localhost,me@node1")
    assert list(placed(plan)) == ["zebra", "node1"]
    assert plan.torchrun[1].startswith(
        "torchrun --nnodes=2 --node-rank=1 --nproc-per-node=2 --master-addr=zebra --master-port=29400 -m launch.train"
    )
    assert plan.ssh == "onward train c.yaml --hosts localhost,me@node1"
    in_order = planned("node1:3,node2:1")
    assert [len(host.ranks) for host in in_order.hosts] == [3, 1]
    assert all("--rdzv-endpoint=node1:29400" in command for command in in_order.torchrun)


def test_what_ssh_does_not_offer_is_said_in_its_place() -> None:
    plan = planned("2", restart="job")
    assert plan.ssh == ""
    assert "--hosts starts the processes once" in "\n".join(plan.lines(()))


def test_the_links_between_hosts_are_counted() -> None:
    config = with_link(Config.model_validate({"stages": {2: {"replicas": 2}}}), on_one_host=False)
    links = link_accounts(config, place(config, 0))
    plan = start_plan(config, "2", ["c.yaml"])
    assert [(each.sender, each.receiver) for each in plan.links_between(links)] == [
        ("stage 2 replica 1", "stage 3"), ("stage 2 replica 2", "stage 3"),
    ]  # fmt: skip
    assert {each.kind for each in links} == {"p2p"}
    assert plan.to_message(links)["links_between"] == [each.name for each in plan.links_between(links)]


def test_shares_are_even_and_leave_nobody_out() -> None:
    for processes in range(1, 30):
        for hosts in range(1, processes + 1):
            counts = shares(processes, hosts)
            assert max(counts) - min(counts) <= 1
            assert min(counts) >= 1
            assert [rank for ranks in ranks_by_host(counts) for rank in ranks] == list(range(processes))
            assert (hosts in even_numbers_of_hosts(processes)) == (hosts > 1 and len(set(counts)) == 1)
    assert (what_is_even(1), what_is_even(5)) == ("", "5 hosts (1 each)")


def test_what_the_shell_would_read_otherwise_is_quoted() -> None:
    (command,) = torchrun_commands([2, 2], Endpoint("fd00::1", "a b"), ["c.yaml", "faults=[{kind: kill}]"])
    assert command.endswith(
        "--rdzv-id='a b' --rdzv-endpoint=[fd00::1]:29400 -m launch.train c.yaml 'faults=[{kind: kill}]'"
    )


def test_check_prints_it_with_every_link(folder: Path, onward: Callable[..., Any]) -> None:
    printed = onward("check", "config.yaml", "run_dir=runs/a", "--hosts", "2").out
    assert "#   HOST2  2: stage 3, 3: stage 4\n" in printed
    assert "--rdzv-id=a --rdzv-endpoint=HOST1:29400 -m launch.train config.yaml run_dir=runs/a\n" in printed
    assert "kind: auto" in printed  # as it may be started on one host, too
    found = json.loads(onward("check", "config.yaml", "--hosts", "4", "--json").out)
    assert [host["processes"] for host in found["start"]["hosts"]] == [[f"stage {k}"] for k in (1, 2, 3, 4)]
    assert found["start"]["coordinator"] == "HOST1"
    assert onward("check", "config.yaml", "--hosts", "5").code == 2
