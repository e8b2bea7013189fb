"""Started by torchrun itself, as on a cluster: the same run, wrong settings refused, workers started again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from launch.prepare.ports import free_port
from tests.marks import slow
from tests.recovery import STEPS, Trial, disturbed, fault, faults, python, undisturbed
from tests.runs import LIMIT, TINY, Process, ended_afterwards, wait_for_steps
from tests.strangers import NOBODY, needs_root
from tests.waiting import wait_until
from workers.control.failures import STOPPING

pytestmark = pytest.mark.processes

ANEW = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Without it torchrun gives every attempt the store of the one before."""


@contextlib.contextmanager
def agents(
    trial: Trial,
    count: int,
    each: int,
    *overrides: str,
    restarts: int = 0,
    anew: bool = True,
    forked: bool = True,
    environment: dict[str, str] | None = None,
) -> Iterator[list[Process]]:
    """`count` torchruns that start `each` processes; several stand for several hosts, and meet at a port."""
    (trial.folder / "tiny.yaml").write_text(TINY)
    meet = ["--standalone"]
    if count > 1:
        meet = [
            f"--nnodes={count}", "--rdzv-backend=c10d", f"--rdzv-id={trial.private.name}",
            f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--local-addr=127.0.0.1",
        ]  # fmt: skip
    command = python("-m", "torch.distributed.run", *meet, f"--nproc-per-node={each}", f"--max-restarts={restarts}")
    command += ["-m", "launch.train", str(trial.folder / "tiny.yaml"), f"run_dir={trial.run}", *STEPS, *overrides]
    given = {**trial.environment, "OMP_NUM_THREADS": "1", **(environment or {})} | ({ANEW: "1"} if anew else {})
    started = [Process(command, given, forked) for _ in range(count)]
    with ended_afterwards(started):
        yield started


def ended(processes: list[Process]) -> tuple[list[int], str, str]:
    """Exit codes, and everything that was printed."""
    said = [process.communicate(timeout=LIMIT) for process in processes]
    out, error = ("".join(part) for part in zip(*said, strict=True))
    return [process.returncode for process in processes], out, error


def causes(error: str) -> list[str]:
    """Our own lines among torchrun's."""
    return re.findall(r"^(?:error: |interrupted).*$", error, re.M)


def test_torchrun_by_hand_gives_the_same_weights(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial, agents(trial, 1, 2, "processes=2", forked=False) as processes:
        codes, _, error = ended(processes)
        assert codes == [0], error
        assert trial.digest == undisturbed()


def test_a_wrong_number_of_processes_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial, agents(trial, 1, 2) as processes:
        codes, _, error = ended(processes)
        assert codes != [0]
        assert causes(error) == [
            "error: this run needs 4 processes (one per stage, or per replica of a stage) and torchrun started 2. Give "
            "--nproc-per-node=4, or other model.cuts, processes or replicas"
        ]
        assert not trial.run.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("anew", "overrides", "remedy"),
    [
        (False, (), f"Set {ANEW}=1 in the environment of torchrun on every host"),
        (True, ("restart=stage",), "restart: got 'stage', and torchrun restarts all processes or none"),
    ],
    ids=["old addresses", "one stage alone"],
)
def test_a_restart_that_could_not_work_is_refused(
    tmp_path: Path, anew: bool, overrides: tuple[str, ...], remedy: str
) -> None:
    two = ("processes=2", *overrides)
    with disturbed(tmp_path) as trial, agents(trial, 1, 2, *two, restarts=1, anew=anew) as processes:
        codes, _, error = ended(processes)
        assert codes != [0]
        assert remedy in error
        assert not trial.run.exists()


@pytest.mark.parametrize(
    ("count", "each", "overrides", "victim"),
    [
        pytest.param(1, 4, (), "stage_1", marks=pytest.mark.slow),
        (1, 2, ("processes=2",), "coordinator"),
        pytest.param(2, 2, ("link.kind=p2p",), "stage_3", marks=pytest.mark.slow),
        pytest.param(2, 2, ("link.kind=rpc",), "stage_2", marks=pytest.mark.slow),
        pytest.param(1, 4, ("link.kind=rpc",), "stage_4", marks=pytest.mark.slow),
    ],
    ids=["one agent, rank 0", "one agent, coordinator", "two agents, p2p", "two agents, rpc", "one agent, rpc"],
)
def test_torchrun_starts_them_again(
    tmp_path: Path, count: int, each: int, overrides: tuple[str, ...], victim: str
) -> None:
    with disturbed(tmp_path) as trial:
        pause = faults(trial.pause(1, 5))
        with agents(trial, count, each, pause, *overrides, restarts=2) as processes:
            trial.signal(victim, signal.SIGKILL, 5, processes[0])
            codes, out, error = ended(processes)
        assert codes == [0] * count, error
        assert "going on from the snapshot after 4 steps" in out
        assert trial.digest == undisturbed()


def test_a_failure_without_restarts_has_one_cause(tmp_path: Path) -> None:
    overrides = ("link.kind=p2p", "processes=2", faults(fault("raise", 3, 6)))
    with disturbed(tmp_path) as trial, agents(trial, 2, 1, *overrides) as processes:
        codes, _, error = ended(processes)
        assert 0 not in codes
        assert causes(error) == [
            "error: stage 3 failed at step 6: InjectedFault: the configuration asked for it (faults)"
        ]


LATE = """
import os, sys, time
opened = []
def wait(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".lock") and not opened:
        opened.append(event)
        with open(os.environ["PORT"] + ".new", "w") as file:
            file.write(os.environ["MASTER_PORT"])
        os.replace(os.environ["PORT"] + ".new", os.environ["PORT"])
        deadline = time.monotonic() + 600
        while not os.path.exists(os.environ["GO"]) and time.monotonic() < deadline:
            time.sleep(0.02)
if os.environ.get("RANK") == "0":
    sys.addaudithook(wait)
"""
"""Rank 0 says where the store of the ranks is, and claims the directory of the run, when somebody lets it."""
PREFIXES = ("", "/worker/attempt_0/")
"""What torchrun puts before the names in it, depending on who serves it."""


@pytest.mark.slow
@needs_root
def test_who_reaches_the_store_cannot_tell_a_rank_what_to_run(tmp_path: Path) -> None:
    """The ranks read the configuration of the folder that was named there, and imported what that named."""
    trap = Path(tempfile.mkdtemp(prefix="trap-", dir="/tmp"))
    sprung = trap / "sprung"
    trap.chmod(0o777)
    (trap / "config.yaml").write_text(
        f"model: {{backbone: 'subprocess:getoutput', options: {{cmd: 'touch {sprung}'}}}}\n{TINY}"
    )
    (trap / "key").write_text("0" * 64)
    os.chown(trap, NOBODY, NOBODY)
    lie = {
        "run_dir": str(trap),
        "private_dir": str(trap),
        "key": "0" * 64,
        "store": "",
        "control": None,
        "signature": "",
    }
    hook, go, port = tmp_path / "hook", tmp_path / "go", tmp_path / "port"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(LATE)
    given = {"PYTHONPATH": str(hook), "GO": str(go), "PORT": str(port)}
    overrides = ("link.kind=p2p", "processes=2")
    refused = "rank 1: ignored an announcement in torchrun's store that is not of rank 0"
    with (
        disturbed(tmp_path) as trial,
        agents(trial, 2, 1, *overrides, anew=False, environment=given) as processes,
    ):
        try:
            wait_until(port.exists, "the start of rank 0", LIMIT)
            store = TCPStore("127.0.0.1", int(port.read_text()), is_master=False, wait_for_workers=False)
            for prefix in PREFIXES:
                store.set(f"{prefix}onward/run", json.dumps(lie))
            wait_until(lambda: any(refused in process.err for process in processes), "the lie to be read", LIMIT)
            go.touch()
            codes, _, error = ended(processes)
        finally:
            shutil.rmtree(trap)
        assert codes == [0, 0], error
        assert trial.digest == undisturbed()
        assert not sprung.exists()
        assert not (trial.run / ".key").exists()


MUTE = """
import sys, time
if "launch.processes.coordinator_main" in sys.orig_argv:
    time.sleep(15)
"""
"""The coordinator takes its time to start, and then finds that nobody waits for it, if it has not been killed."""


@pytest.mark.slow
def test_the_folder_with_the_key_goes_when_rank_0_is_ended_while_it_starts(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(MUTE)
    with (
        disturbed(tmp_path / "trial") as trial,
        agents(trial, 1, 1, "processes=1", environment={"PYTHONPATH": str(hook)}) as processes,
    ):
        wait_until(lambda: any(trial.private.glob("onward-*/key")), "the key", LIMIT)
        processes[0].terminate()
        codes, _, _ = ended(processes)
        assert codes != [0]


def test_torchrun_is_asked_to_stop(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        pause = faults(trial.pause(1, 5))
        with agents(trial, 1, 2, "processes=2", pause) as processes:
            wait_for_steps(tmp_path, 5, processes[0])
            processes[0].terminate()
            processes[0].wait_for(STOPPING)
            trial.go()
            _, _, error = ended(processes)
            found = re.findall(
                r"^interrupted; the same torchrun with \S+ goes on from the snapshot after (\d+) steps", error, re.M
            )
            assert len(found) == 1, error
        result = trial.train(pause)
        assert f"going on from the snapshot after {found[0]} steps" in result.stdout
        assert trial.digest == undisturbed()


@pytest.mark.parametrize(
    "number", [signal.SIGUSR1, slow(signal.SIGUSR2), slow(signal.SIGHUP), slow(signal.SIGINT)], ids=lambda n: n.name
)
def test_torchrun_that_dies_of_a_signal_leaves_a_snapshot(tmp_path: Path, number: signal.Signals) -> None:
    """It does not handle what schedulers warn with, and died at once; its ranks were killed with all that they knew."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `make test` under nohup ignores it, and so would torchrun
    try:
        with (
            disturbed(tmp_path) as trial,
            agents(trial, 1, 2, "processes=2", faults(trial.pause(1, 5))) as (process,),
        ):
            wait_for_steps(tmp_path, 5, process)
            process.send_signal(number)
            wait_until(lambda: STOPPING in process.out, lambda: (process.out, process.err))
            trial.go()
            _, _, error = ended([process])
            wait_until(lambda: "goes on from the snapshot after" in process.err, lambda: error)
            (steps,) = re.findall(r"goes on from the snapshot after (\d+) steps", process.err)
            assert (trial.run / "snapshots" / f"step_{steps}" / "manifest.json").exists()
    finally:
        signal.signal(signal.SIGHUP, before)
