"""A training process whose parent is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import LIMIT, ROOT


@pytest.mark.processes
def test_a_process_without_a_parent_leaves_no_half_file(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "step_4"
    folder.mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-m", "launch.processes.stage_main"], cwd=ROOT, stdin=subprocess.PIPE)
    own, other = (folder / f".stage_3.safetensors.{pid}.tmp" for pid in (process.pid, process.pid + 1))
    for path in (own, other):
        path.write_bytes(b"half")
    start = {"run_dir": str(tmp_path), "rank": 0, "private_dir": str(tmp_path), "device": "cpu"}
    process.communicate(json.dumps(start).encode() + b"\n", timeout=LIMIT)
    assert process.returncode == 1
    assert [path.name for path in folder.iterdir()] == [other.name]
