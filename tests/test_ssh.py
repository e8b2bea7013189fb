"""`onward train --hosts` over a real sshd, between hosts with names, folders and a clone of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.laboratory.hosts import Laboratory, laboratory, needs_laboratory
from tests.laboratory.names import Names
from tests.laboratory.sshd import needs_sshd, ssh_between
from tests.recovery import STEPS, python, undisturbed
from tests.runs import ENDLESS, LIMIT, ROOT, TINY, Process, processes_mentioning
from tests.waiting import wait_until
from workers.run.environment import ALLOCATOR

pytestmark = [pytest.mark.processes, pytest.mark.slow, needs_laboratory, needs_sshd]


def run_over_ssh(lab: Laboratory, environment: dict[str, str], *overrides: str) -> Process:
    """The command on the first host."""
    (lab.shared / "tiny.yaml").write_text(TINY)
    training = [str(lab.shared / "tiny.yaml"), *STEPS, "processes=2", f"run_dir={lab.shared / 'run'}", *overrides]
    command = python("-m", "launch.cli", "train", *training)
    return lab[1].start(command, {"OMP_NUM_THREADS": "1", **ALLOCATOR, **environment})


@pytest.mark.parametrize("names", ["debian", "v6"])
def test_a_run_over_ssh_is_the_same(names: Names) -> None:
    """The clone is at another path than on the first host, which is asked over ssh, too."""
    with laboratory(2, names) as lab, ssh_between(lab, 1, 2) as environment:
        (lab.shared / "clone").symlink_to(ROOT)
        process = run_over_ssh(lab, environment, "--hosts", "node1,node2", "--chdir", str(lab.shared / "clone"))
        out, error = process.communicate()
        assert process.returncode == 0, (out, error)
        assert json.loads((lab.shared / "run/report.json").read_text())["final_digest"] == undisturbed()
        assert "kind: p2p\n" in (lab.shared / "run/config.yaml").read_text().partition("\nlink:")[2]


def test_hosts_that_cannot_be_reached_and_versions_that_differ_are_one_line() -> None:
    with laboratory(3) as lab, ssh_between(lab, 2) as environment:
        process = run_over_ssh(lab, environment, "--hosts", "node3,nobody")
        _, error = process.communicate()
        assert process.returncode == 2
        assert error.count("\n") == 1
        assert "node3 cannot be reached by ssh (connect to host node3 port 22: Connection refused)" in error
        assert "nobody cannot be reached by ssh (Could not resolve hostname nobody" in error
        lab[2].change("launch/train.py", "Starts a rank", "Starts one rank")
        process = run_over_ssh(lab, environment, "--hosts", "localhost,node2")
        _, error = process.communicate()
        assert process.returncode == 2, error
        assert re.fullmatch(r"(node2: )?error: node2 \(rank 1\) has other source files of Onward .*\n", error), error


def test_a_terminal_that_is_lost_ends_all_hosts() -> None:
    with endless() as (lab, _):
        (launcher,) = running(lab, "launch.cli")
        os.kill(launcher, signal.SIGKILL)  # not `process`, which has only entered the host
        wait_until(lambda: not trained(lab), lambda: trained(lab), LIMIT)


def test_a_host_that_is_cut_off_ends_the_run_with_one_cause() -> None:
    with endless("hang_timeout=10", "link.timeout=20") as (lab, process):
        lab[2].link(up=False)
        _, error = process.communicate()
        assert process.returncode == 1, error
        assert len(re.findall(r"^error: ", error, re.M)) == 2, error
        assert re.search(r"^error: stages? \S+ failed at step \d+: ", error, re.M), error
        assert "error: the connection to node2 was lost. " in error
        wait_until(lambda: not trained(lab), lambda: trained(lab), LIMIT)


@contextlib.contextmanager
def endless(*overrides: str) -> Iterator[tuple[Laboratory, Process]]:
    """A run on two hosts that has made a step, which only something else ends."""
    with laboratory(2) as lab, ssh_between(lab, 2) as environment:
        process = run_over_ssh(lab, environment, ENDLESS, "--hosts", "localhost,node2", *overrides)
        metrics = lab.shared / "run/metrics.jsonl"
        wait_until(
            lambda: (metrics.exists() and metrics.read_text()) or process.poll() is not None, lambda: process.err, LIMIT
        )
        assert process.poll() is None, process.err
        yield lab, process
        process.kill()


def running(lab: Laboratory, module: str) -> list[int]:
    """Processes of a module in the run, on any host."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
            if words[:1] == [sys.executable] and module in words and f"run_dir={lab.shared / 'run'}" in words:
                found.append(int(entry.name))
    return found


def trained(lab: Laboratory) -> list[str]:
    """Ranks and coordinators that are left on any host."""
    return [line for line in processes_mentioning(shlex.quote(str(lab.shared / "run"))) if "launch." in line]
