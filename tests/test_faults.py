"""A run that cannot go on ends within seconds, with one message, exit code 1 and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from tests.runs import processes_mentioning, report, start, train, wait_for_steps

SECONDS_TO_END = 25
"""Generous for a busy machine; it takes about three."""


def pid_of(folder: Path, name: str) -> int:
    text = (folder / "run" / "logs" / f"{name}.log").read_text()
    found = re.search(r"process (\d+)", text)
    assert found, text
    return int(found.group(1))


def private_folders() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("onward-")}


def nothing_left(folder: Path) -> bool:
    deadline = time.monotonic() + 5
    while processes_mentioning(str(folder)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize(
    ("victim", "kind", "message"),
    [
        ("stage_1", "queue", r"^error: stage 1 failed at step \d+: its process was killed by signal 9 \(SIGKILL\)$"),
        ("stage_3", "queue", r"^error: stage 3 failed at step \d+: its process was killed by signal 9 \(SIGKILL\)$"),
        ("stage_2", "rpc", r"^error: stage 2 failed at step \d+: its process was killed by signal 9 \(SIGKILL\)$"),
        ("coordinator", "queue", r"^error: coordinator failed .*: its process was killed by signal 9$"),
    ],
)
def test_a_killed_process_ends_the_run(tmp_path: Path, victim: str, kind: str, message: str) -> None:
    shared, private = set(os.listdir("/dev/shm")), private_folders()
    process = start(tmp_path, "train.max_steps=600", f"link.kind={kind}")
    wait_for_steps(tmp_path, 3, process)
    os.kill(pid_of(tmp_path, victim), signal.SIGKILL)
    killed = time.monotonic()
    _, err = process.communicate(timeout=SECONDS_TO_END)
    assert process.returncode == 1
    assert time.monotonic() - killed < SECONDS_TO_END
    assert re.search(message, err, re.MULTILINE), err
    assert len(err.strip().splitlines()) == 1
    assert nothing_left(tmp_path), processes_mentioning(str(tmp_path))
    assert set(os.listdir("/dev/shm")) <= shared
    if victim != "coordinator":
        assert private_folders() <= private


@pytest.mark.parametrize("steps", [6, 60])
def test_an_exception_names_stage_step_and_cause(tmp_path: Path, steps: int) -> None:
    # With 6 steps stage 1 has finished when stage 3 fails: torchrun's order to stop once reached it while it waited
    # for the coordinator, which was killed before it had written down the cause.
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        textwrap.dedent("""
            import os, sys
            if os.environ.get("RANK") == "2":
                import pipeline.stage as module
                update = module.Stage.update
                def failing(self, step, labels=None):
                    if step == 4:
                        raise ValueError("the third block is upset")
                    return update(self, step, labels)
                module.Stage.update = failing
        """)
    )
    result = train(tmp_path, f"train.max_steps={steps}", environment={"PYTHONPATH": str(hook)})
    assert result.returncode == 1
    assert result.stderr.strip() == "error: stage 3 failed at step 4: ValueError: the third block is upset"
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert (failure["who"], failure["step"]) == ("stage 3", 4)
    assert "Traceback" in (tmp_path / "run" / "logs" / "stage_3.log").read_text()
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_run_says_so(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, "train.max_steps=600")
    wait_for_steps(tmp_path, 3, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"interrupted at step \d+", err.strip()), err
    assert nothing_left(tmp_path)


def test_a_killed_command_line_leaves_no_orphan(tmp_path: Path) -> None:
    process = start(tmp_path, "train.max_steps=600")
    wait_for_steps(tmp_path, 2, process)
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 45
    while processes_mentioning(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not processes_mentioning(str(tmp_path))


def test_a_loss_that_is_not_a_number_names_its_stage(tmp_path: Path) -> None:
    diverge = ("optimizer.warmup_epochs=0", "stages.2.optimizer.lr=1.0e+30", "train.max_skipped=3")
    result = train(tmp_path, "runtime=serial", *diverge)
    assert result.returncode == 1
    assert re.fullmatch(
        r"error: stage 2 failed at step 3: the loss is (nan|inf), and 3 steps in a row were skipped "
        r"\(train\.max_skipped\)\. Lower optimizer\.lr .*stages\.2\.optimizer",
        result.stderr.strip(),
    ), result.stderr


def test_a_block_that_skips_steps_leaves_the_others_to_train_and_is_named_in_the_end(tmp_path: Path) -> None:
    diverge = ("optimizer.warmup_epochs=0", "stages.4.optimizer.lr=1.0e+30")
    result = train(tmp_path, *diverge)
    assert result.returncode == 0, result.stderr
    assert "stage 4 skipped 5 steps: loss or gradient not finite" in result.stdout
    assert [stage["skipped"] for stage in report(tmp_path)["stages"]] == [0, 0, 0, 5]
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert [stage["loss"] is None for stage in last["stages"]] == [False, False, False, True]
