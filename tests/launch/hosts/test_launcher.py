"""`onward train --hosts` with a stand-in for ssh. tests/test_ssh.py has a real sshd on hosts of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from launch.hosts.messages import MARKER, StartRanks
from launch.prepare.ports import free_port
from tests.launch.hosts.stand_in_ssh import stand_in_ssh
from tests.recovery import STEPS, descendants, disturbed, faults, python, undisturbed
from tests.runs import LIMIT, TINY, processes_mentioning, start, wait_for_steps
from tests.waiting import wait_until
from workers.control.failures import STOPPING
from workers.run.files import RunDir
from workers.run.json_lines import write_line
from workers.run.keys import new_key

pytestmark = pytest.mark.processes


def refusal(folder: Path, *arguments: str) -> str:
    """What the command says that refuses a run over ssh, in one line."""
    process = start(folder, *arguments, environment=stand_in_ssh(folder))
    out, error = process.communicate()
    assert process.returncode == 2, (out, error)
    assert re.fullmatch(r"error: [^\n]*\n", error), error
    assert not (folder / "run").exists()
    return error


def test_every_host_that_cannot_be_reached_is_named_with_its_remedy(tmp_path: Path) -> None:
    said = refusal(tmp_path, "--hosts", "off,unknown,stranger,changed")
    assert "off cannot be reached by ssh (connect to host off port 22: Connection refused). Is it on" in said
    assert "unknown cannot be reached by ssh (Could not resolve hostname unknown" in said
    assert "Give it your key (ssh-copy-id stranger)" in said
    assert "ssh changed true" in said
    asked = (tmp_path / "calls").read_text()
    assert "-o BatchMode=yes" in asked
    assert "-o ConnectTimeout=" in asked


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--chdir", "/no/such/clone"), "a has no folder '/no/such/clone'. Clone Onward there"),
        (("--python", "nowhere/python"), "a has no Python at 'nowhere/python'"),
        (("--python", "/bin/false"), "on a '/bin/false' does not start Onward"),
        (("network.address=127.0.0.1",), "network.address: names an address of one host"),
        (("network.interface=none0",), "a: network.interface: 'none0' is no interface of"),
        (("restart=job", "snapshots.every=1"), "restart: got 'job', and --hosts starts the processes once"),
        (("runtime=serial",), "trains in one process"),
    ],
)
def test_what_a_host_lacks_is_one_line(arguments: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    assert problem in refusal(tmp_path, "--hosts", "a", *arguments)


def test_options_of_other_hosts_need_hosts(tmp_path: Path) -> None:
    assert "Give --hosts, too" in refusal(tmp_path, "--chdir", "/")


@pytest.mark.slow
def test_ctrl_c_takes_a_snapshot_on_all_hosts_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """Two programs of one rank each, which believe to be on two hosts; the one called localhost without ssh."""
    with disturbed(tmp_path) as trial:
        environment = {**trial.environment, **stand_in_ssh(tmp_path)}
        arguments = (*STEPS, faults(trial.pause(1, 5)), "processes=2", "--hosts", "localhost,b")
        process = start(tmp_path, *arguments, environment=environment)
        wait_for_steps(tmp_path, 5, process)
        assert not RunDir(trial.run).key.exists()  # it came through the standard input of ssh
        process.send_signal(signal.SIGINT)
        process.wait_for(STOPPING)
        trial.go()
        out, error = process.communicate()
        assert process.returncode == 130, (out, error)
        goes_on = "interrupted; the same onward train --hosts with "
        assert [line[: len(goes_on)] for line in error.splitlines()] == [goes_on], error
        assert not processes_mentioning(str(trial.private))
        assert (tmp_path / "calls").read_text().count("\n") == 1
        again = start(tmp_path, *arguments, environment=environment)
        out, error = again.communicate()
        assert again.returncode == 0, (out, error)
        assert trial.digest == undisturbed()
        assert "step 12/12" in out
        assert "Mind the gap" not in out


def test_the_ranks_of_a_host_end_with_its_connection(tmp_path: Path) -> None:
    """Also where they still wait for those of other hosts."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    begin = StartRanks(
        first_rank=0, count=1, world_size=2, address="127.0.0.1", port=free_port(), key=new_key(),
        arguments=[str(tmp_path / "tiny.yaml")], leave_seconds=LIMIT,
    )  # fmt: skip
    given = {**os.environ, "TMPDIR": str(tmp_path)}
    command = python("-P", "-m", "launch.hosts.host_main")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=given) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline().startswith(MARKER.encode())
        write_line(program.stdin.fileno(), {"type": "StartRanks", **begin.to_message()})
        wait_until(lambda: descendants(program.pid), "a rank")
        assert [path.stat().st_mode & 0o777 for path in tmp_path.glob("onward-*/key")] == [0o600]
        program.stdin.close()
        assert program.wait(LIMIT) == 128 + signal.SIGTERM
    assert not processes_mentioning(str(tmp_path))
    assert not [*tmp_path.glob("onward-*")]
