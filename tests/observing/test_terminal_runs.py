"""Real runs on a terminal, and as quiet or as wordy as one likes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.processes.fork_client import Forked
from tests.marks import slow
from tests.observing.screens import Screen, on_a_terminal
from tests.observing.test_terminal import HIDDEN, PLAIN, SHOWN
from tests.runs import command, train
from tests.workers.evaluating.evaluating_runs import image_folder
from workers.control.failures import STOPPING

pytestmark = pytest.mark.processes

ALL_OF_IT = re.compile(r"(?P<images>\d+) images in \d:\d\d, \d+ images/s  ·  everything is in (?P<where>.*)")
PROBED = ("evaluation.linear_probe=true", "train.max_steps=8")
FEW = "data={name: image_folder, batch_size: 8, image_size: 16}"


def test_a_run_on_a_terminal_ends_with_one_screen(tmp_path: Path) -> None:
    images = f"data.root={image_folder(tmp_path / 'images')}"
    shown = on_a_terminal("launch.cli", command(tmp_path, *PROBED, FEW, images)[3:])
    assert shown.code == 0, shown.rows
    begin = next(n for n, row in enumerate(shown.rows) if row.startswith("linear probe, %"))
    summary = [row for row in shown.rows[begin:] if row]
    assert len(summary) <= 24
    assert len([row for row in summary if re.match(r"│ +[1-4] │ +\d+\.\d → +\d+\.\d", row)]) == 4
    found = ALL_OF_IT.search(" ".join(summary))
    assert found
    assert found["images"] == "64"
    assert f"onward report {tmp_path}" in "".join(row.ljust(80) for row in summary).replace("  ", " ")
    table = shown.rows[:begin]
    assert len([row for row in table if "step 8/8" in row]) == 1
    assert len([row for row in table if re.match(r"[! ] +[1-4] +\d+\.\d{4} +[█░▒]", row)]) == 4
    for network in (rb"untrained", rb"(?<!un)trained"):
        for phase in (b"features of the train images", b"features of the test images", b"linear probes"):
            assert re.search(network + b" network: " + phase, shown.written), "a sign of life meanwhile"
    assert not shown.with_text("linear probes: "), "which leaves nothing behind"
    assert shown.written.count(HIDDEN) == shown.written.count(SHOWN) == 2


@pytest.mark.parametrize("runtime", ["pipelined", slow("serial")])
def test_a_run_that_is_ended_at_once_gives_the_cursor_back(tmp_path: Path, runtime: str) -> None:
    awaited = [STOPPING, "step 2/6"]

    def interrupt(shown: Screen, process: Forked, resize: Callable[[int], None]) -> None:
        if awaited and shown.with_text(awaited[-1]):
            awaited.pop()
            os.kill(process.pid, signal.SIGINT)

    slow = "faults=[{kind: slow, stage: 2, step: 2, seconds: 200}]"
    shown = on_a_terminal("launch.cli", command(tmp_path, f"runtime={runtime}", slow)[3:], meanwhile=interrupt)
    assert shown.code == 130, shown.rows
    assert not awaited
    assert shown.written.rindex(SHOWN) > shown.written.rindex(HIDDEN)
    assert not shown.screen.cursor.hidden
    assert [row for row in shown.rows if row][-1].startswith("interrupted at once"), "on a line of its own"


def test_a_quiet_run_says_where_everything_is(tmp_path: Path) -> None:
    result = train(tmp_path, "--quiet")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    (found,) = map(ALL_OF_IT.fullmatch, result.stdout.splitlines())
    assert found
    assert (found["images"], found["where"]) == ("384", f"{tmp_path}/run")


def test_a_quiet_run_says_what_went_wrong(tmp_path: Path) -> None:
    result = train(tmp_path, "-q", "faults=[{kind: kill, stage: 3, step: 5}]")
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(r"error: stage 3 failed at step 5: .*\n", result.stderr)


def test_a_verbose_run_says_everything(tmp_path: Path) -> None:
    result = train(tmp_path, "-v", "snapshots.every=4", "stages.2.replicas=2")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    steps = [found for found in map(PLAIN.fullmatch, lines) if found]
    assert [found["step"] for found in steps] == ["1", "2", "3", "4", "5", "6"]
    for who in ("stage 1", "stage 2 replica 1", "stage 2 replica 2", "stage 4"):
        log = tmp_path / "run" / "logs" / f"{who.replace(' ', '_')}.log"
        (line,) = [line for line in lines if line.startswith(f"{who}: process ")]
        assert line.endswith(f" on cpu, log {log}")
        assert f"process {line.split()[who.count(' ') + 2]}" in log.read_text(), "the process that wrote it"
    links = [line for line in lines if line.startswith("link from ")]
    assert len(links) == 4
    assert links[1].startswith("link from stage 1 to stage 2 replica 1 and stage 2 replica 2: queue, at most 2 batches")
    assert "the snapshot after 4 steps is complete" in lines


def test_quiet_and_verbose_are_refused_together_and_change_nothing(tmp_path: Path) -> None:
    result = train(tmp_path, "-q", "-v")
    assert result.returncode == 2
    assert result.stderr == "error: --quiet and --verbose: a run cannot be both. Give one of them\n"
    assert not (tmp_path / "run").exists()
