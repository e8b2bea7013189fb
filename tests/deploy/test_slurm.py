"""Slurm itself: jobs of `deploy/slurm/onward.sbatch` train, are requeued and go on, on two nodes of a real cluster."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.slurm_cluster import ENDED, JOB_SECONDS, Cluster, slurm_cluster
from tests.recovery import STEPS, disturbed, faults, undisturbed
from tests.runs import ROOT, TINY
from tests.waiting import wait_until
from workers.control.failures import STOPPING

SCRIPT = str(ROOT / "deploy" / "slurm" / "onward.sbatch")
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")
PIPELINE = ("processes=2", "link.kind=p2p")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.timeout(4 * JOB_SECONDS),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a Slurm whose nodes are namespaces of processes"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm_cluster() as running:
        yield running


def submit(cluster: Cluster, folder: Path, options: tuple[str, ...], *overrides: str) -> int:
    """The number of a job that trains the tiny network in `folder`."""
    (folder / "tiny.yaml").write_text(TINY)
    return int(cluster.command("sbatch", "--parsable", *options, SCRIPT, "tiny.yaml", *STEPS, *overrides, cwd=folder))


def output(folder: Path) -> str:
    """What the jobs of a folder have printed."""
    return "\n".join(path.read_text() for path in sorted(folder.glob("slurm-*.out")))


def wait_for(cluster: Cluster, job: int, what: Path, lines: int = 0) -> None:
    """Until a file of a job that runs is there, and has so many lines."""
    folder = Path(cluster.job(job)["WorkDir"])

    def there() -> bool:
        assert cluster.job(job)["JobState"] not in ENDED, output(folder)
        return what.exists() and what.read_text().count("\n") >= lines

    wait_until(there, lambda: f"{what}: {output(folder)}", JOB_SECONDS)


def digest(run: Path) -> str:
    """Of the trained weights."""
    return str(json.loads((run / "report.json").read_text())["final_digest"])


def test_an_array_trains_one_run_a_seed(tmp_path: Path, cluster: Cluster) -> None:
    with disturbed(tmp_path):
        job = submit(cluster, tmp_path, ("--array=1-2",), "processes=1")
        for task in (1, 2):
            assert cluster.wait_for_end(f"{job}_{task}") == "COMPLETED", output(tmp_path)
            assert digest(tmp_path / "runs" / f"tiny-{job}_{task}") == undisturbed(f"seed={task}")


def test_a_job_that_is_warned_is_requeued_and_goes_on(tmp_path: Path, cluster: Cluster) -> None:
    """Without the script a signal tore the ranks down, and the requeued job began anew."""
    with disturbed(tmp_path) as trial:
        pauses, every = faults(trial.pause(1, 5)), "snapshots.every=100"
        job = submit(cluster, tmp_path, TWO_NODES, *PIPELINE, pauses, every)
        run = tmp_path / "runs" / f"tiny-{job}"
        wait_for(cluster, job, run / "metrics.jsonl", lines=5)
        cluster.command("scancel", "--batch", "--signal=USR1", str(job))
        wait_until(lambda: STOPPING in output(tmp_path), lambda: output(tmp_path), JOB_SECONDS)
        trial.go()
        assert cluster.wait_for_end(job) == "COMPLETED", output(tmp_path)
        assert cluster.job(job)["Restarts"] == "1"
        assert re.search(r"going on from the snapshot after ([5-9]|1[01]) steps", output(tmp_path))
        assert digest(run) == undisturbed()


def test_a_job_that_loses_a_node_goes_on_when_it_is_back(tmp_path: Path, cluster: Cluster) -> None:
    with disturbed(tmp_path) as trial:
        run_dir = f"run_dir={trial.run}"
        job = submit(cluster, tmp_path, TWO_NODES, *PIPELINE, faults(trial.pause(1, 5)), run_dir)
        wait_for(cluster, job, trial.run / "metrics.jsonl", lines=5)
        wait_for(cluster, job, trial.run / "snapshots" / "step_4" / "manifest.json")
        cluster.kill("n2")
        trial.go()
        # Slurm would find that out within minutes.
        cluster.command("scontrol", "update", "nodename=n2", "state=down", "reason=died")
        wait_until(lambda: cluster.job(job)["Restarts"] == "1", lambda: output(tmp_path), JOB_SECONDS)
        cluster.start_node("n2")
        assert cluster.wait_for_end(job) == "COMPLETED", output(tmp_path)
        assert "going on from the snapshot after 4 steps" in output(tmp_path)
        assert trial.digest == undisturbed()


def test_a_cancelled_job_is_not_requeued(tmp_path: Path, cluster: Cluster) -> None:
    with disturbed(tmp_path) as trial:
        job = submit(cluster, tmp_path, (), "processes=2", faults(trial.pause(1, 5)), f"run_dir={trial.run}")
        wait_for(cluster, job, trial.run / "metrics.jsonl", lines=5)
        cluster.command("scancel", str(job))
        trial.go()
        assert cluster.wait_for_end(job) == "CANCELLED"
        assert cluster.job(job)["Restarts"] == "0"


def test_srun_alone_starts_the_ranks(tmp_path: Path, cluster: Cluster) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    srun = ("srun", "--nodes=2", "--ntasks=2", sys.executable, "-P", "-m", "launch.train", "tiny.yaml", *STEPS)
    with disturbed(tmp_path):
        few = cluster.run(*srun, "link.kind=rpc", cwd=tmp_path)
        assert few.returncode == 2, few.stderr
        assert "this run needs 4 processes" in few.stderr
        command = (
            "srun started 2 on 2 hosts. Give: srun --nodes=2 --ntasks=4 --ntasks-per-node=2 python -m launch.train tiny"
        )
        assert command in few.stderr
        assert not (tmp_path / "runs").exists()
        done = cluster.run(*srun, "link.kind=rpc", "processes=2", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (run,) = (tmp_path / "runs").iterdir()
        assert re.fullmatch(r"tiny-\d+", run.name)
        assert digest(run) == undisturbed()
