"""What `deploy/slurm/onward.sbatch` starts, and when it requeues its job; with stand-ins for Slurm and for Onward."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runs import LIMIT, ROOT

SCRIPT = ROOT / "deploy" / "slurm" / "onward.sbatch"
JOB = {"SLURM_JOB_ID": "123", "SLURM_JOB_NODELIST": "n1", "SLURM_JOB_NUM_NODES": "1", "SLURM_TASKS_PER_NODE": "1"}
SNAPSHOT = 'mkdir -p "$run/snapshots/step_5"'
WARNED = """trap '{then}; exit {code}' USR1
kill -USR1 $PPID
for _ in $(seq 6000); do sleep 0.01; done"""
"""Slurm warns the script, which hands that on; then the run ends."""
LOST = """mkdir -p "$run"; echo '{"kind": "died"}' >"$run/failure.json"; exit 1"""
pytestmark = pytest.mark.processes


@dataclass(frozen=True)
class Ended:
    """How the script ended: its exit code, what it printed, what it started, and what it asked of scontrol."""

    code: int
    out: str
    started: str
    asked: str


@pytest.fixture
def submit(tmp_path: Path) -> Callable[..., Ended]:
    """Runs the script: `submit("c.yaml", "key=value", does=SHELL, SLURM_X="1")`; `$run` is the run directory."""
    places = {name: tmp_path / name for name in ("python", "srun", "scontrol")}
    places["srun"].write_text('#!/bin/bash\necho -n "srun " >>started\nexec "$@"\n')
    places["scontrol"].write_text('#!/bin/bash\necho "$@" >asked\n')
    (tmp_path / "c.yaml").write_text("seed: 1\n")

    def run(*arguments: str, does: str = "exit 0", **environment: str) -> Ended:
        head = '#!/bin/bash\n[ "$2" != -c ] || exit 0\necho "$@" >>started\nrun=${!#}; run=${run#run_dir=}\n'
        places["python"].write_text(head + does + "\n")
        for path in places.values():
            path.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        given = {**kept, **JOB, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ONWARD_PYTHON": str(places["python"])}
        done = subprocess.run(
            ["bash", SCRIPT, *arguments],
            cwd=tmp_path,
            env=given | environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        started, asked = (
            path.read_text() if path.exists() else "" for path in (tmp_path / "started", tmp_path / "asked")
        )
        return Ended(done.returncode, done.stdout + done.stderr, started.strip(), asked.strip())

    return run


@pytest.mark.parametrize(
    ("arguments", "environment", "started"),
    [
        ((), {}, "-P -m launch.cli train c.yaml run_dir=runs/c-123"),
        (("a=1", "run_dir=x y"), {}, "-P -m launch.cli train c.yaml a=1 run_dir=x y run_dir=x y"),
        ((), {"SLURM_TASKS_PER_NODE": "4"}, "srun -P -m launch.train c.yaml run_dir=runs/c-123"),
        (
            (),
            {"SLURM_JOB_NUM_NODES": "2", "SLURM_TASKS_PER_NODE": "1(x2)"},
            "srun -P -m launch.train c.yaml run_dir=runs/c-123",
        ),
        (
            (),
            {"SLURM_ARRAY_JOB_ID": "120", "SLURM_ARRAY_TASK_ID": "3"},
            "-P -m launch.cli train c.yaml seed=3 run_dir=runs/c-120_3",
        ),
        (
            ("seed=9", "run_dir=x/"),
            {"SLURM_ARRAY_TASK_ID": "3"},
            "-P -m launch.cli train c.yaml seed=9 run_dir=x/ run_dir=x_3",
        ),
    ],
    ids=["one task", "a folder", "tasks", "nodes", "an array", "an array with a seed and a folder"],
)
def test_what_it_starts(
    submit: Callable[..., Ended], arguments: tuple[str, ...], environment: dict[str, str], started: str
) -> None:
    ended = submit("c.yaml", *arguments, **environment)
    assert (ended.code, ended.started, ended.asked) == (0, started, ""), ended.out


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_the_folder_that_a_configuration_names(submit: Callable[..., Ended], tmp_path: Path, quote: str) -> None:
    """As the configuration in a run directory does: the same job goes on with that run."""
    (tmp_path / "c.yaml").write_text(f"seed: 1\nrun_dir: {quote}/scratch/run{quote}\n")
    assert submit("c.yaml").started == "-P -m launch.cli train c.yaml run_dir=/scratch/run"
    (tmp_path / "started").unlink()
    (tmp_path / "c.yaml").write_text("seed: 1\nrun_dir: null\n")
    assert submit("c.yaml").started == "-P -m launch.cli train c.yaml run_dir=runs/c-123"


@pytest.mark.parametrize("arguments", [(), ("gone.yaml",)])
def test_no_configuration(submit: Callable[..., Ended], arguments: tuple[str, ...]) -> None:
    ended = submit(*arguments)
    assert (ended.code, ended.started) == (2, "")
    assert "Usage: sbatch deploy/slurm/onward.sbatch CONFIG" in ended.out


@pytest.mark.parametrize("tasks", ["1", "2"])
def test_a_job_whose_time_is_over_is_requeued(submit: Callable[..., Ended], tasks: str) -> None:
    ended = submit("c.yaml", does=WARNED.format(then=SNAPSHOT, code=130), SLURM_TASKS_PER_NODE=tasks)
    assert ended.asked == "requeue 123", ended.out
    assert "job 123 is requeued (its time is over) and goes on in runs/c-123" in ended.out


@pytest.mark.parametrize(
    ("does", "environment", "code"),
    [
        (WARNED.format(then=":", code=130), {}, 1),
        (WARNED.format(then=SNAPSHOT, code=0), {}, 0),
        ("exit 1", {}, 1),
        (f"{SNAPSHOT}; exit 130", {}, 130),
        (LOST, {"SLURM_RESTART_COUNT": "1"}, 1),
    ],
    ids=["no snapshot", "the end came first", "it failed", "stopped by somebody", "lost again without a snapshot"],
)
def test_a_job_that_is_not_requeued(
    submit: Callable[..., Ended], does: str, environment: dict[str, str], code: int
) -> None:
    ended = submit("c.yaml", does=does, **environment)
    assert (ended.code, ended.asked) == (code, ""), ended.out


@pytest.mark.parametrize(("does", "start"), [(LOST, "0"), (f"{SNAPSHOT}; {LOST}", "3")])
def test_a_job_that_lost_processes_is_requeued(submit: Callable[..., Ended], does: str, start: str) -> None:
    ended = submit("c.yaml", does=does, SLURM_RESTART_COUNT=start)
    assert ended.asked == "requeue 123", ended.out
    assert "(processes were lost)" in ended.out
