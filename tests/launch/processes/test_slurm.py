"""What srun tells its tasks, in torchrun's variables. tests/deploy/test_slurm.py asks Slurm itself."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from launch.processes.rank_run import own_config
from launch.processes.slurm import hosts, ranks_of_srun, run_name, take_ranks_of_srun, tasks_of_step
from pipeline.errors import UserError
from tests.runs import TINY
from workers.topology.joining import join_group

JOB = {
    "SLURM_JOB_ID": "123", "SLURM_JOB_NODELIST": "localhost,n[1-3]", "SLURM_NTASKS": "4",
    "SLURM_TASKS_PER_NODE": "1(x4)", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
}  # fmt: skip
"""A batch script has these, and a task those of its step."""
TASK = JOB | {
    "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "localhost,n[1-2]", "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("names", "each"),
    [
        ("n1", ["n1"]),
        ("n[01-03,7],m5", ["n01", "n02", "n03", "n7", "m5"]),
        ("a-b,n[09-10]-ib", ["a-b", "n09-ib", "n10-ib"]),
        ("r[1-2]n[3-4]", ["r1n3", "r1n4", "r2n3", "r2n4"]),
        ("", []),
    ],
)
def test_host_lists(names: str, each: list[str]) -> None:
    assert list(hosts(names)) == each


def test_a_task_of_several_nodes() -> None:
    ranks = ranks_of_srun(TASK)
    assert ranks == {
        "RANK": "3", "WORLD_SIZE": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost", "MASTER_PORT": "15123",
    }  # fmt: skip
    assert ranks_of_srun(TASK | {"SLURM_NODEID": "2"})["LOCAL_WORLD_SIZE"] == "1"
    assert ranks_of_srun(TASK | {"SLURM_STEP_ID": "1"})["MASTER_PORT"] != ranks["MASTER_PORT"]
    assert 15000 <= int(ranks_of_srun(TASK | {"SLURM_JOB_ID": "4294901760"})["MASTER_PORT"]) < 32000
    given = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    assert ranks_of_srun(TASK | given) == ranks | given


def test_tasks_of_one_node_meet_on_it_whatever_its_name() -> None:
    here = TASK | {"SLURM_STEP_NODELIST": "nowhere.invalid", "SLURM_STEP_TASKS_PER_NODE": "5", "SLURM_NODEID": "0"}
    assert ranks_of_srun(here)["MASTER_ADDR"] == "127.0.0.1"


@pytest.mark.processes
def test_a_first_node_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # as in a container without Slurm's commands
    with pytest.raises(UserError, match=r"'nowhere\.invalid', has no address here.*Set MASTER_ADDR"):
        ranks_of_srun(TASK | {"SLURM_STEP_NODELIST": "nowhere.invalid,n1"})


@pytest.mark.parametrize(
    ("environment", "tasks"),
    [
        ({}, 0),
        ({name: value for name, value in JOB.items() if name != "SLURM_PROCID"}, 0),
        (JOB, 0),
        (TASK, 5),
        (TASK | {"SLURM_STEP_NUM_TASKS": "1"}, 1),
    ],
    ids=["elsewhere", "the shell of salloc", "a batch script", "a task", "srun --pty bash"],
)
def test_who_is_a_task(environment: dict[str, str], tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tasks_of_step(environment) == tasks
    for name in [name for name in os.environ if name.startswith("SLURM") or name in ("RANK", "WORLD_SIZE")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    take_ranks_of_srun()
    assert os.environ.get("WORLD_SIZE") == ("5" if tasks > 1 else None)


def test_torchrun_inside_of_srun_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (TASK | {"RANK": "1", "WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    take_ranks_of_srun()
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("1", "2")
    assert "LOCAL_RANK" not in os.environ


def test_a_port_that_somebody_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as taken:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        for name, value in (TASK | ranks_of_srun(TASK | place | {"SLURM_PROCID": "0"})).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
        with pytest.raises(UserError, match=rf"do not meet at 127\.0\.0\.1:{place['MASTER_PORT']} \(.*MASTER_PORT"):
            join_group(5.0)


def test_the_run_of_a_job_has_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = {"SLURM_JOB_ID": "130", "SLURM_ARRAY_JOB_ID": "123", "SLURM_ARRAY_TASK_ID": "7"}
    assert run_name("a", TASK) == "a-123"
    assert run_name("a", TASK | {"SLURM_RESTART_COUNT": "1"}) == "a-123"
    assert run_name("a", TASK | {"SLURM_STEP_ID": "2"}) == "a-123.2"
    assert run_name("a", TASK | array) == "a-123_7"
    assert run_name("a", JOB) is None
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "tiny.yaml").write_text(TINY)
    assert own_config([str(tmp_path / "tiny.yaml")])[0].run_dir == "runs/tiny-123"
    assert own_config([str(tmp_path / "tiny.yaml"), "run_dir=here"])[0].run_dir == "here"
