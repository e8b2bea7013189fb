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
from tests.waiting import LIMIT

pytestmark = pytest.mark.processes

PROGRAM = PROMETHEUS / "announce.py"


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


def test_a_run_that_its_user_has_stopped_is_no_run_that_is_gone(tmp_path: Path) -> None:
    root, file = tmp_path / "runs", tmp_path / "runs.json"
    kinds = {"stopped": {"kind": "interrupted"}, "died": {"kind": "died"}, "strange": [], "stranger": {"kind": {}}}
    for port, (name, failure) in enumerate(kinds.items(), 1):
        folder = run_folder(root, name, metrics=f"http://127.0.0.1:{port}/metrics")
        (folder / "failure.json").write_text(json.dumps(failure))
    assert [group["labels"]["run"] for group in announced(root, file)] == ["died", "strange", "stranger"]
    (root / "stopped" / "failure.json").unlink()  # as it goes on
    assert len(announced(root, file)) == 4


def test_a_port_belongs_to_the_run_that_got_it_last(tmp_path: Path) -> None:
    root, file, now = tmp_path / "runs", tmp_path / "runs.json", time.time()
    for name, age in (("a-new", 10.0), ("z-old", 500.0)):
        state = run_folder(root, name, metrics="http://127.0.0.1:9464/metrics") / "coordinator.json"
        os.utime(state, (now - age, now - age))
    (root / "z-old" / "metrics.jsonl").write_text("{}\n")
    run_folder(root, "m-other", metrics="http://127.0.0.2:9464/metrics")
    assert [group["labels"]["run"] for group in announced(root, file)] == ["a-new", "m-other"]


def test_what_was_in_the_file_does_not_matter(tmp_path: Path) -> None:
    root, file = tmp_path / "runs", tmp_path / "runs.json"
    root.mkdir()
    file.write_bytes(b"\xff\xfe")
    assert announced(root, file) == []


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
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stderr
    try:
        for port, name in enumerate(("first", "second"), 1):
            run_folder(root, name, metrics=f"http://127.0.0.1:{port}/metrics")
            assert any(line.endswith(f"{name}\n") for line in process.stdout)
        # A folder on another host may be away for a while.
        root.rename(tmp_path / "away")
        assert "looking again every 0.05 s" in process.stderr.readline()
        (tmp_path / "away").rename(root)
        run_folder(root, "third", metrics="http://127.0.0.1:3/metrics")
        assert any(line == f"{file}: first, second, third\n" for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
        process.wait(timeout=LIMIT)
    assert process.returncode == 0
    assert [group["labels"]["run"] for group in json.loads(file.read_text())] == ["first", "second", "third"]
    assert errors == "", "it is said once"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing", "runs.json"), "missing: No such file"),
        ((".", "runs.txt"), "ends in .json"),
        ((".", "runs.json", "--every", "0"), "above 0"),
        ((".", "runs.json", "--every", "nan"), "above 0"),
        ((".", "runs.json", "--every", "inf"), "3600 at most"),
        ((".", "missing.json/runs.json", "--once"), "missing.json: File exists"),
        ((".", "folder.json"), "folder.json"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "missing.json").write_text("")
    (tmp_path / "folder.json").mkdir()
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
