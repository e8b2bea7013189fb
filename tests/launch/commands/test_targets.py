"""`onward targets` tells Prometheus of runs: who is on the list, under which labels, and when one is taken off."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from launch.commands.targets import KEEP_SECONDS, targets_in, write_targets
from launch.prepare.run_lock import claim
from pipeline.errors import UserError
from tests.runs import LIMIT, Process, onward
from tests.waiting import wait_until
from workers.run.files import write_json


def run_folder(root: Path, name: str, **state: object) -> Path:
    """The folder of a run that has written `state` into its coordinator.json, and failed since."""
    folder = root / name
    folder.mkdir(parents=True)
    write_json(folder / "coordinator.json", state)
    write_json(folder / "failure.json", {"kind": "died", "message": "it was killed"})
    return folder


def served(port: int, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{port}/metrics"


def written(root: Path, file: Path) -> Any:
    write_targets(root, file, once=True, every=5.0)
    return json.loads(file.read_text())


def names(root: Path) -> list[str]:
    return [target.run.name for target in targets_in(root, time.time())]


def test_labels_tell_runs_apart(tmp_path: Path) -> None:
    root, file = tmp_path / "runs", tmp_path / "targets" / "runs.json"
    start = {"host": "node7", "time": "2026-12-01T00:00:00+00:00"}
    write_json(run_folder(root, "b", metrics=served(2345)) / "provenance.json", {"starts": [{"host": "node1"}, start]})
    run_folder(root, "a", metrics=served(1234, "10.0.0.5"))
    run_folder(root, "c\u202e", metrics=served(3456, "[::1]"))
    run_folder(root, "without-metrics", stages=4)
    run_folder(root, "damaged").joinpath("coordinator.json").write_text('{"metrics": "http://127.0.')
    for name, metrics in (("strange", [1]), ("stranger", "http://[::1/metrics"), ("strangest", "")):
        run_folder(root, name, metrics=metrics)
    (root / "linked").mkdir()
    (root / "linked" / "coordinator.json").symlink_to(root / "a" / "coordinator.json")
    (root / "not-a-run").mkdir()
    (root / "file").write_text("")
    assert written(root, file) == [
        {"targets": ["10.0.0.5:1234"], "labels": {"run": "a", "folder": str(root)}},
        {"targets": ["127.0.0.1:2345"], "labels": {"run": "b", "folder": str(root), "host": "node7"}},
        {"targets": ["[::1]:3456"], "labels": {"run": "c?", "folder": str(root)}},
    ]
    assert [path.name for path in file.parent.iterdir()] == ["runs.json"], "Prometheus would read what is left over"


def test_a_folder_may_be_a_run_itself(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "run", metrics=served(1))
    (folder / "config.yaml").write_text("")
    assert names(folder) == ["run"]


def test_a_run_that_ended_well_is_taken_off_and_one_that_failed_is_not(tmp_path: Path) -> None:
    run_folder(tmp_path, "failed", metrics=served(1))
    (run_folder(tmp_path, "vanished", metrics=served(2)) / "failure.json").unlink()
    done = run_folder(tmp_path, "done", metrics=served(3))
    (done / "failure.json").unlink()
    assert names(tmp_path) == ["done", "failed", "vanished"]
    (done / "report.json").write_text("{}")
    assert names(tmp_path) == ["failed", "vanished"]
    with claim(done):
        assert "done" in names(tmp_path), "its blocks are still measured"


def test_a_run_that_its_user_has_stopped_is_no_run_that_is_missed(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "run", metrics=served(1))
    write_json(folder / "failure.json", {"kind": "interrupted", "message": "interrupted"})
    assert names(tmp_path) == []
    with claim(folder):
        assert names(tmp_path) == ["run"], "it goes on"


def test_an_address_belongs_to_the_run_that_got_it_last(tmp_path: Path) -> None:
    now = time.time()
    for name, age in (("a-new", 10.0), ("z-old", 500.0)):
        state = run_folder(tmp_path, name, metrics=served(9464)) / "coordinator.json"
        os.utime(state, (now - age, now - age))
    (tmp_path / "z-old" / "metrics.jsonl").write_text("{}\n")
    run_folder(tmp_path, "m-other", metrics=served(9464, "127.0.0.2"))
    assert names(tmp_path) == ["a-new", "m-other"]


def test_a_run_that_vanished_is_forgotten_a_day_after_its_last_step(tmp_path: Path) -> None:
    long_ago = time.time() - KEEP_SECONDS - 60
    for port, name in enumerate(("vanished", "stepping", "hanging"), 1):
        os.utime(run_folder(tmp_path, name, metrics=served(port)) / "coordinator.json", (long_ago, long_ago))
    (tmp_path / "stepping" / "metrics.jsonl").write_text("{}\n")
    with claim(tmp_path / "hanging"):
        assert names(tmp_path) == ["hanging", "stepping"]


def test_what_was_in_the_file_does_not_matter_and_the_same_is_not_written_again(tmp_path: Path) -> None:
    root, file = tmp_path / "runs", tmp_path / "runs.json"
    root.mkdir()
    file.write_bytes(b"\xff\xfe")
    assert written(root, file) == []
    before = file.stat()
    assert written(root, file) == []
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.processes
def test_it_goes_on_looking_until_it_is_stopped(tmp_path: Path) -> None:
    root, file = tmp_path / "runs", tmp_path / "runs.json"
    root.mkdir()
    process = Process(["targets", str(root), str(file), "--every", "0.05"], forked=True)
    try:
        for port, name in enumerate(("first", "second"), 1):
            run_folder(root, name, metrics=served(port))
            process.wait_for(f"{name}\n")
        root.rename(tmp_path / "away")  # it may be on another host, which does not answer
        wait_until(lambda: "Looking again every 0.05 s" in process.err, "the problem", LIMIT)
        (tmp_path / "away").rename(root)
        run_folder(root, "third", metrics=served(3))
        process.wait_for(f"{file}: first, second, third\n")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 0
    assert errors.count("Looking again") == 1, "it is said once"


@pytest.mark.parametrize(
    ("folder", "file", "every", "words"),
    [
        ("missing", "runs.json", 5.0, "missing' cannot be read"),
        (".", "runs.txt", 5.0, "end in .json"),
        (".", "runs.json", 0.0, "above 0"),
        (".", "runs.json", float("nan"), "above 0"),
        (".", "runs.json", float("inf"), "3600 at most"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, folder: str, file: str, every: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        write_targets(tmp_path / folder, tmp_path / file, once=True, every=every)


@pytest.mark.processes
@pytest.mark.parametrize("file", ["file.json/runs.json", "folder.json"])
def test_a_file_that_cannot_be_written_is_told(tmp_path: Path, file: str) -> None:
    (tmp_path / "file.json").write_text("")
    (tmp_path / "folder.json").mkdir()
    ended = onward("targets", tmp_path, tmp_path / file, "--once")
    assert ended.returncode == 2
    assert file.partition("/")[0] in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
