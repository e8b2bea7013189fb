"""The whole of `make gpu` in its small form, twice: every row is there, and both end with the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.rows import all_rows
from tests.runs import ROOT

SECONDS = 1700.0


def make_gpu(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "gpu", f"PYTHON={sys.executable}", "DEVICE=cpu", "SMALL=1"]
    command += [f"ARGS=--out {out}", *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    (rows,) = json.loads(path.read_text())["measured"].values()
    return dict(rows)


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
def test_every_row_is_measured_and_has_the_same_digests_twice(tmp_path: Path) -> None:
    found = []
    for name in ("one.json", "other.json"):
        part = make_gpu(tmp_path / name, "PART=1/4")
        assert part.returncode == 0, part.stdout + part.stderr
        assert set(rows_of(tmp_path / name)) == {row.name for row in all_rows() if row.part == 1}
        first = (tmp_path / name).read_text()
        done = make_gpu(tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = rows_of(tmp_path / name)
        assert set(rows) == {row.name for row in all_rows()}
        assert json.loads(first)["measured"].popitem()[1].items() <= rows.items(), "part 1 was measured again"
        found.append({name: row["digests"] for name, row in rows.items() if "digests" in row})
        assert all(row.name in done.stdout for row in all_rows())
        assert not rows["operations"]["failed"]
    assert found[0] == found[1]
    blockwise = {"ResNet-50: serial", "ResNet-50: four processes", "ViT-S: plain loop", "bits: kill -9, restart=stage"}
    assert blockwise <= found[0].keys()
    again = make_gpu(tmp_path / "one.json")
    assert again.returncode == 0
    assert "part " not in again.stdout.partition("result")[0], "rows that were there were measured again"
