"""Runs announce themselves to Prometheus: who is on the list, under which name, and when one is taken off."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.parts import PROMETHEUS

PROGRAM = PROMETHEUS / "announce.py"
LIMIT = 60


def run_folder(root: Path, name: str, **state: object) -> Path:
    """The folder of a run that has written `state` into its coordinator.json."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "coordinator.json").write_text(json.dumps(state))
    return folder


def announced(root: Path, file: Path) -> Any:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(root), str(file), "--once"], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


def test_runs_are_announced_under_the_names_of_their_folders(tmp_path: Path) -> None:
    root, file = tmp_path / "runs", tmp_path / "targets" / "runs.json"
    run_folder(root, "b", metrics="http://127.0.0.1:2345/metrics")
    run_folder(root, "a", metrics="http://10.0.0.5:1234/metrics")
    run_folder(root, "without-metrics", stages=4)
    (run_folder(root, "damaged") / "coordinator.json").write_text('{"metrics": "http://127.0.')
    run_folder(root, "strange", metrics=[1])
    run_folder(root, "stranger", metrics="http://[::1/metrics")
    (root / "not-a-run").mkdir()
    (root / "file").write_text("")
    assert announced(root, file) == [
        {"targets": ["10.0.0.5:1234"], "labels": {"run": "a"}},
        {"targets": ["127.0.0.1:2345"], "labels": {"run": "b"}},
    ]
    assert [path.name for path in file.parent.iterdir()] == ["runs.json"], "Prometheus would read what is left over"


def test_a_run_that_ended_well_is_taken_off_and_one_that_failed_is_not(tmp_path: Path) -> None:
    root, file = tmp_path / "runs", tmp_path / "runs.json"
    done = run_folder(root, "done", metrics="http://127.0.0.1:1/metrics")
    failed = run_folder(root, "failed", metrics="http://127.0.0.1:2/metrics")
    assert len(announced(root, file)) == 2
    (done / "report.json").write_text("{}")
    (failed / "failure.json").write_text("{}")
    assert [group["labels"]["run"] for group in announced(root, file)] == ["failed"]


def test_a_run_that_vanished_is_forgotten_a_day_after_its_last_step(tmp_path: Path) -> None:
    keep = runpy.run_path(str(PROGRAM))["KEEP_SECONDS"]
    root, file = tmp_path / "runs", tmp_path / "runs.json"
    long_ago = time.time() - keep - 60
    for name in ("vanished", "alive"):
        os.utime(
            run_folder(root, name, metrics="http://127.0.0.1:1/metrics") / "coordinator.json", (long_ago, long_ago)
        )
    (root / "alive" / "metrics.jsonl").write_text("{}\n")
    assert [group["labels"]["run"] for group in announced(root, file)] == ["alive"]


def test_it_goes_on_looking_until_it_is_stopped(tmp_path: Path) -> None:
    root, file = tmp_path / "runs", tmp_path / "runs.json"
    root.mkdir()
    command = [sys.executable, str(PROGRAM), str(root), str(file), "--every", "0.05"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + LIMIT
        for name in ("first", "second"):
            run_folder(root, name, metrics="http://127.0.0.1:1/metrics")
            while not file.exists() or name not in file.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
        process.wait(timeout=LIMIT)
    assert process.returncode == 0
    assert out.splitlines()[-1].endswith("first, second")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing", "runs.json"), "missing: No such file"),
        ((".", "runs.txt"), "ends in .json"),
        ((".", "runs.json", "--every", "0"), "above 0"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
