"""Runs across hosts, each with names, folders and a clone of its own: they start, or every host says why not."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests.laboratory.hosts import Host, Laboratory, laboratory, needs_laboratory
from tests.laboratory.names import Names
from tests.marks import slow
from tests.recovery import STEPS, fault, faults, pause, python, undisturbed
from tests.runs import LIMIT, TINY, Process, ended_afterwards, processes_mentioning
from tests.session_server import NAMESPACES
from tests.waiting import wait_until
from workers.run.environment import ALLOCATOR

pytestmark = [pytest.mark.processes, needs_laboratory]
PORT = 29400


@contextlib.contextmanager
def torchruns(
    lab: Laboratory, each: int, *overrides: str, static: bool = False, forked: bool = True
) -> Iterator[list[Process]]:
    """The same torchrun on every host, which starts `each` processes there; forked, or in new interpreters."""
    (lab.shared / "tiny.yaml").write_text(TINY)
    training = ["-m", "launch.train", str(lab.shared / "tiny.yaml"), *STEPS, f"processes={each * len(lab.hosts)}"]
    started = []
    for host in lab.hosts:
        meet = ["--rdzv-backend=c10d", "--rdzv-id=lab", f"--rdzv-endpoint={lab[1].name}:{PORT}"]
        if lab.names == "container":  # both hosts call themselves localhost, and torchrun's processes have one number
            meet.append(f"--local-addr={host.address}")
        if static:
            meet = [f"--node-rank={host.number - 1}", f"--master-addr={lab[1].address}", f"--master-port={PORT}"]
        command = python("-m", "torch.distributed.run", f"--nnodes={len(lab.hosts)}", f"--nproc-per-node={each}", *meet)
        given = {"OMP_NUM_THREADS": "1", **ALLOCATOR}
        begin = forked_on if forked else Host.start
        started.append(begin(host, [*command, *training, f"run_dir={lab.shared / 'run'}", *overrides], given))
    with ended_afterwards(started):
        yield started


def forked_on(host: Host, command: Sequence[str], environment: Mapping[str, str]) -> Process:
    """What `Host.start` does, in processes that need not import PyTorch."""
    own = {"HOME": str(host.folder / "own/home"), "TMPDIR": str(host.folder / "own/tmp")}
    entered = ":".join(f"/proc/{host.pid}/ns/{kind}" for kind in ("net", "uts", "ipc", "mnt", "pid"))
    return Process(command, {**own, **environment, NAMESPACES: entered}, forked=True)


def ended(processes: list[Process]) -> list[str]:
    """What every host has said on its standard error, once all have ended."""
    return [process.communicate(timeout=LIMIT)[1] for process in processes]


def refusals(said: str) -> list[str]:
    """Our own lines among torchrun's."""
    return re.findall(r"^error: .*$", said, re.M)


@pytest.mark.parametrize(
    ("names", "each", "overrides"),
    [
        ("debian", 1, ()),
        slow("v6", 1, ()),
        slow("good", 2, ("link.kind=rpc",)),
        slow("debian", 2, ("link.kind=rpc",)),
        slow("container", 1, ()),
        slow("container", 1, ("link.kind=rpc",)),
        slow("v6", 1, ("link.kind=rpc",)),
        slow("two", 1, ()),
        slow("two", 1, ("link.kind=rpc",)),
        slow("none", 1, ()),
        slow("none", 1, ("link.kind=rpc",)),
    ],
)
def test_whatever_the_hosts_know_of_names_the_run_is_the_same(
    names: Names, each: int, overrides: tuple[str, ...]
) -> None:
    """Where no name resolves, torchrun itself needs the address of the first host, and a number for every host.

    The two that `make test` runs are forked; tests/test_torchrun.py has one in new interpreters, on one host.
    """
    settings = {"static": names == "none", "forked": each == 1 and names in ("debian", "v6") and not overrides}
    with laboratory(2, names) as lab, torchruns(lab, each, *overrides, **settings) as processes:
        said = ended(processes)
        assert [process.returncode for process in processes] == [0, 0], said
        assert json.loads((lab.shared / "run/report.json").read_text())["final_digest"] == undisturbed()
        kind = overrides[0].partition("=")[2] if overrides else "p2p"
        assert f"kind: {kind}\n" in (lab.shared / "run/config.yaml").read_text().partition("\nlink:")[2]


def test_a_host_with_another_version_is_named_on_every_host() -> None:
    """In one sentence, which torchrun's own summary shows, too."""
    with laboratory(2) as lab:
        lab[2].change("launch/train.py", "Starts a rank", "Starts one rank")
        with torchruns(lab, 1) as processes:
            said = ended(processes)
        for process, text in zip(processes, said, strict=True):
            assert process.returncode != 0
            (sentence,) = refusals(text)
            assert re.fullmatch(
                r"error: node2 \(rank 1\) has other source files of Onward \(digest \w+\) than rank 0 on node1 "
                r"\(\w+\)\. Check out the same commit on every host",
                sentence,
            ), text
            assert f"traceback : {sentence}" in text
            assert "exitcode  : 2 " in text
        assert not (lab.shared / "run").exists()


@pytest.mark.slow
def test_a_folder_that_is_not_shared_is_named_on_every_host() -> None:
    with laboratory(2) as lab, torchruns(lab, 1, f"run_dir={lab.unshared}", "shared_run_dir=true") as processes:
        for text in ended(processes):
            (sentence,) = refusals(text)
            assert sentence.startswith(f"error: node2 (rank 1) sees another folder '{lab.unshared.parent}' than rank 0")


@pytest.mark.timeout(3 * LIMIT)  # three runs
def test_hosts_that_share_no_run_directory_train_and_go_on() -> None:
    """The first keeps the run; a snapshot is complete only with the parts of the other, which keeps its logs."""
    with laboratory(2) as lab:
        folder, killed = f"run_dir={lab.unshared}", faults(pause(lab.shared / "die", 4, 9), fault("raise", 4, 9))
        with torchruns(lab, 1, folder, killed) as processes:
            manifest = lab[1].sees(lab.unshared / "snapshots/step_8/manifest.json")
            wait_until(manifest.exists, lambda: [process.err for process in processes])
            (lab.shared / "die").touch()
            said = ended(processes)
        assert all(process.returncode != 0 for process in processes)
        assert "node2 and node1 do not share the run directory: node1 keeps the run. The key of its conn" in (
            processes[0].out
        )
        assert all("stage 4 failed at step 9" in text for text in said), said
        with torchruns(lab, 1, folder) as processes:
            said = ended(processes)
        assert [process.returncode for process in processes] == [0, 0], said
        assert "going on from the snapshot after 8 steps" in processes[0].out
        run = lab[1].sees(lab.unshared)
        assert json.loads((run / "report.json").read_text())["final_digest"] == undisturbed()
        assert {path.name for path in lab[2].sees(lab.unshared).iterdir()} == {"logs", ".faults", "elsewhere.json"}


@pytest.mark.slow
def test_a_name_that_does_not_resolve_ends_with_one_sentence() -> None:
    """With `is_host` torchrun starts, and calls the first host by its own name, which nobody else knows."""
    with laboratory(2, "none") as lab:
        code = "from workers.topology.joining import join_group; join_group(1)"
        given = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_PORT": "29500"}
        process = lab[2].start(python("-c", code), {**given, "MASTER_ADDR": "node1"})
        assert "which torchrun calls 'node1': the name does not resolve on node2" in ended([process])[0]


def test_the_laboratory_leaves_nothing_behind_when_a_test_fails() -> None:
    folder = None
    with contextlib.suppress(ZeroDivisionError), laboratory(2, "two") as lab:
        folder = str(lab.folder)
        lab[1].start(["sh", "-c", f"exec sleep 1000 # {folder}"])
        lab[2].run("sh", "-c", f"echo mine > {lab.unshared}; echo ours > {lab.shared}/file")
        assert lab[1].run("cat", f"{lab.shared}/file") == "ours\n"
        assert lab[1].run("sh", "-c", f"cat {lab.unshared} 2>/dev/null || echo none") == "none\n"
        assert {host.run("hostname") for host in lab.hosts} == {"node1\n", "node2\n"}
        raise ZeroDivisionError
    assert folder is not None
    wait_until(lambda: not processes_mentioning(str(folder)), lambda: processes_mentioning(str(folder)))
    with laboratory(2):  # nor is a name taken
        pass


@pytest.mark.slow
def test_the_commands_that_check_prints_start_the_run() -> None:
    """Three processes on two hosts: each has a command of its own, and the processes are where it says."""
    with laboratory(2) as lab:
        (lab.shared / "tiny.yaml").write_text(TINY)
        arguments = [str(lab.shared / "tiny.yaml"), *STEPS, "processes=3", f"run_dir={lab.shared / 'run'}"]
        asked = python("-m", "launch.cli", "check", *arguments, "--memory", "--json", "--hosts", "node1,node2")
        found = json.loads(lab[1].run(*asked))["start"]
        assert [host["ranks"] for host in found["hosts"]] == [[0, 1], [2]]
        given = {"OMP_NUM_THREADS": "1", **ALLOCATOR}
        commands = [shlex.split(command) for command in found["commands"]["torchrun"]]
        assert [command[0] for command in commands] == ["torchrun", "torchrun"]
        run = python("-m", "torch.distributed.run")
        started = [h.start([*run, *c[1:], "-v"], given) for h, c in zip(lab.hosts, commands, strict=True)]
        try:
            said = ended(started)
        finally:
            for process in started:
                process.kill()
        assert [process.returncode for process in started] == [0, 0], said
        assert json.loads((lab.shared / "run/report.json").read_text())["final_digest"] == undisturbed()
        for host, process in zip(found["hosts"], started, strict=True):
            there = re.findall(rf"^(.*): process \d+ of {host['host']} on cpu", process.out, re.M)
            assert sorted(there) == sorted(host["processes"])


@pytest.mark.slow
def test_a_wrong_number_of_processes_is_answered_on_every_host_with_the_right_command() -> None:
    with laboratory(2) as lab, torchruns(lab, 2, "stages.2.replicas=2", "processes=null") as processes:
        for text in ended(processes):
            (sentence,) = refusals(text)
            assert sentence.startswith(
                "error: this run needs 5 processes (one per stage, or per replica of a stage) and"
            )
            for each in (3, 2):
                command = f"torchrun --nnodes=2 --nproc-per-node={each} --rdzv-backend=c10d --rdzv-id=lab "
                assert f"{command}--rdzv-endpoint=node1:29400 -m launch.train {lab.shared}/tiny.yaml" in sentence
            assert "exitcode  : 2 " in text
        assert not (lab.shared / "run").exists()
