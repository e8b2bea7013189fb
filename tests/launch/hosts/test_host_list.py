"""What `--hosts` names, and which ranks run where."""

from __future__ import annotations

import pytest

from launch.hosts.connection import Checkout, remote_command
from launch.hosts.host_list import HostEntry, distribute, parse_hosts
from pipeline.errors import UserError


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("a", [("a", None)]),
        ("a, me@b.example:4", [("a", None), ("me@b.example", 4)]),
        ("10.0.0.1:2,fd00::1,[fd00::2]:3,me@[fe80::1%eth0]", [
            ("10.0.0.1", 2), ("fd00::1", None), ("fd00::2", 3), ("me@fe80::1%eth0", None),
        ]),
    ],
)  # fmt: skip
def test_host_lists(text: str, entries: list[tuple[str, int | None]]) -> None:
    assert parse_hosts(text) == [HostEntry(*entry) for entry in entries]


@pytest.mark.parametrize("text", ["", "a,,b", "a:0", "a:x", "a b", "-oProxyCommand=x", "a,a:2", "a:1:2", "[a"])
def test_what_is_no_host_list_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^--hosts: '"):
        parse_hosts(text)


@pytest.mark.parametrize(
    ("text", "gpus", "processes", "counts"),
    [
        ("a,b", None, 4, [2, 2]),
        ("a,b,c", None, 4, [2, 1, 1]),
        ("a:1,b", None, 4, [1, 3]),
        ("a:8,b:8", None, 4, [2, 2]),
        ("a,b", [8, 1], 4, [3, 1]),
        ("a,b", [8, 0], 4, [3, 1]),
        ("a,b", [1, 1], 4, [2, 2]),
        ("a:1,b", [8, 2], 4, [1, 3]),
        ("a,b", [0, 0], 3, [2, 1]),
    ],
)
def test_ranks_are_spread_evenly_within_the_slots(
    text: str, gpus: list[int] | None, processes: int, counts: list[int]
) -> None:
    assert distribute(parse_hosts(text), gpus, processes) == counts


@pytest.mark.parametrize(
    ("text", "processes", "problem"),
    [
        ("a:1,b:2", 4, r"has 4 processes, and the hosts have 3 slots"),
        ("a,b,c", 2, r"has 2 processes, fewer than the 3 hosts\. Leave out c"),
    ],
)
def test_hosts_that_do_not_fit_the_run_are_refused(text: str, processes: int, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        distribute(parse_hosts(text), None, processes)


def test_paths_on_other_hosts_may_hold_anything(capfd: pytest.CaptureFixture[str]) -> None:
    command = remote_command(Checkout("~/my $HOME's clone", "/opt/a b/python"))
    assert command.startswith("exec /bin/sh -c '")
    assert """cd "$HOME"/'"'"'my $HOME""" in command
    assert "'/opt/a b/python'" in command.replace("""'"'"'""", "'")
