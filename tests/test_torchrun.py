"""Started by torchrun itself, as on a cluster: the same run, and wrong numbers of processes are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.runs import LIMIT, ROOT, TINY, report, train


def torchrun(folder: Path, processes: int) -> subprocess.CompletedProcess[str]:
    (folder / "tiny.yaml").write_text(TINY)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*launcher, "-m", "launch.train", str(folder / "tiny.yaml"), f"run_dir={folder / 'run'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)


def test_torchrun_by_hand_gives_the_same_weights(tmp_path: Path) -> None:
    result = torchrun(tmp_path, 4)
    assert result.returncode == 0, result.stderr
    serial = tmp_path / "serial"
    serial.mkdir()
    assert train(serial, "runtime=serial").returncode == 0
    assert report(tmp_path)["final_digest"] == report(serial)["final_digest"]


def test_a_wrong_number_of_processes_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    result = torchrun(tmp_path, 2)
    assert result.returncode != 0
    assert "error: the network is cut into 4 stages and torchrun started 2 processes" in result.stderr
    assert "--nproc-per-node=4" in result.stderr
    assert not (tmp_path / "run").exists()
