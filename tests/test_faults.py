"""A run that cannot go on ends within seconds, with one message, exit code 1 and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from pipeline.config.faults import FaultConfig
from tests.marks import slow
from tests.recovery import disturbed, fault, faults, pause, undisturbed
from tests.runs import ENDLESS, LIMIT, report, train, wait_for_snapshot, wait_for_steps
from workers.run.faults import Faults
from workers.run.files import RunDir

KILLED = r"its process was killed by signal 9 \(SIGKILL\)"
STACKS = (
    r"; its stacks are in logs/stage_2\.log(; those of its neighbours in logs/stage_[13]\.log(, logs/stage_3\.log)?)?"
)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("victim", "overrides", "message"),
    [
        slow("stage_1", ("link.kind=p2p",), rf"stage 1 failed at step \d+: {KILLED}"),
        ("stage_3", (), rf"stage 3 failed at step \d+: {KILLED}"),
        slow("stage_2", ("link.kind=rpc",), rf"stage 2 failed at step \d+: {KILLED}"),
        ("stages_1-2", ("processes=2",), rf"stages 1-2 failed at step \d+: {KILLED}"),
        ("coordinator", (), rf"coordinator failed( at step \d+)?: {KILLED}"),
    ],
    ids=["first, p2p", "third, queue", "second, rpc", "two stages in one", "coordinator"],
)
def test_a_killed_process_ends_the_run(tmp_path: Path, victim: str, overrides: tuple[str, ...], message: str) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start(ENDLESS, *overrides)
        trial.signal(victim, signal.SIGKILL, 3, process)
        error = trial.failed(process)
        assert re.fullmatch("error: " + message, error), error


@pytest.mark.processes
def test_a_killed_feed_worker_is_replaced_and_nothing_else_changes(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start("data.workers=1", faults(trial.pause(1, 3)))  # batches are still to be made
        wait_for_steps(tmp_path, 2, process)
        os.kill(_feed_worker(trial.pid("coordinator")), signal.SIGKILL)
        trial.go()
        _, error = process.communicate(timeout=LIMIT)
        assert (process.returncode, error) == (0, "")
        assert trial.digest == undisturbed()
    assert report(tmp_path)["feed"]["restarts"] == 1


@pytest.mark.processes
def test_a_killed_command_line_leaves_no_orphan_and_a_cause(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start(ENDLESS, "data.workers=1")
        wait_for_steps(tmp_path, 2, process)
        process.kill()
        process.communicate(timeout=LIMIT)
    failure = json.loads((trial.run / "failure.json").read_text())
    assert failure["message"].startswith("onward train failed")
    assert failure["message"].endswith("its process ended without a word")


@pytest.mark.processes
@pytest.mark.parametrize("steps", [6, slow(60)])
def test_an_exception_names_stage_step_and_cause(tmp_path: Path, steps: int) -> None:
    # With 6 steps stage 1 has finished when stage 3 fails.
    with disturbed(tmp_path) as trial:
        error = trial.failed(trial.start(f"train.max_steps={steps}", faults(fault("raise", 3, 4))))
        assert error == "error: stage 3 failed at step 4: InjectedFault: the configuration asked for it (faults)"
        failure = json.loads((trial.run / "failure.json").read_text())
        assert (failure["who"], failure["step"], failure["kind"]) == ("stage 3", 4, "raised")
        assert "Traceback" in (trial.run / "logs" / "stage_3.log").read_text()


@pytest.mark.processes
def test_a_step_that_never_ends_is_named(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        error = trial.failed(trial.start(ENDLESS, "hang_timeout=12", faults(fault("hang", 2, 5))))
        hangs = r"error: stage 2 failed at step 5: it has been computing for \d+ s \(hang_timeout\)"
        assert re.fullmatch(hangs + STACKS, error), error
        assert "in _hang\n" in (trial.run / "logs" / "stage_2.log").read_text()


@pytest.mark.processes
@pytest.mark.slow
def test_a_call_that_holds_the_interpreter_is_told_from_a_stopped_process(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        error = trial.failed(trial.start(ENDLESS, "hang_timeout=12", faults(fault("hold", 2, 5))))
        silent = (
            r"error: stage 2 failed at step \d+: no sign of life for \d+ s \(hang_timeout\): a call that is not Python "
        )
        assert re.fullmatch(f"{silent}holds its interpreter{STACKS}", error), error
        assert "in _hold\n" in (trial.run / "logs" / "stage_2.log").read_text()


@pytest.mark.processes
@pytest.mark.parametrize(("victim", "who"), [slow("stage_3", "stage 3"), ("coordinator", "coordinator")])
def test_a_stopped_process_is_named(tmp_path: Path, victim: str, who: str) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start(ENDLESS, "hang_timeout=4")
        trial.signal(victim, signal.SIGSTOP, 3, process)
        error = trial.failed(process)
        assert re.fullmatch(
            rf"error: {who} failed( at step \d+)?: no sign of life for \d+ s \(hang_timeout\): its process or its host "
            r"is stopped or cut off(; it wrote no stacks; its neighbours' are in logs/stage_[24]\.log.*)?",
            error,
        ), error


@pytest.mark.processes
def test_snapshots_that_fail_or_are_damaged_cost_nothing_but_themselves(tmp_path: Path) -> None:
    upset = faults(
        fault("disk_full", 2, 0), fault("corrupt", 3, 7),
        pause(tmp_path / "go", 4, 10), fault("kill", 4, 11),
    )  # fmt: skip
    every = "snapshots.every=3"
    with disturbed(tmp_path) as trial:
        process = trial.start(every, upset)
        wait_for_snapshot(tmp_path, 9, process)
        trial.go()
        out, error = process.communicate(timeout=LIMIT)
        assert process.returncode == 1
        assert re.fullmatch(rf"error: stage 4 failed at step 11: {KILLED}\n", error), error
        assert re.search(
            r"no snapshot after 3 steps: stage 2: '.*stage_2\.safetensors' could not be written \(No space left", out
        ), out
        result = trial.train(every, upset, "runtime=serial")
        assert result.returncode == 0, result.stderr
        assert re.search(r"snapshot after 9 steps passed over: '.*stage_3\.safetensors' is damaged", result.stdout)
        assert "going on from the snapshot after 6 steps" in result.stdout
        assert trial.digest == undisturbed()


def test_a_pause_lasts_as_long_as_it_says_or_until_its_file_is_there(tmp_path: Path) -> None:
    asleep: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.run.faults.time.sleep", asleep.append)
        patch.setattr("workers.run.faults.time.monotonic", lambda: sum(asleep))
        for until in (None, str(tmp_path / "go")):
            run = RunDir(tmp_path / str(until is None))
            run.path.mkdir()
            held = FaultConfig(kind="slow", stage=1, step=3, seconds=2.0, until=until)
            injected = Faults([held], run, [1], 1)
            for step in range(5):
                injected.before_update(1, step)
            assert sum(asleep) == pytest.approx(2.0)
            asleep.clear()
        (tmp_path / "go").touch()
        Faults([held], RunDir(tmp_path), [1], 1).before_update(1, 3)
        assert not asleep


@pytest.mark.processes
def test_a_loss_that_is_not_a_number_names_its_stage(tmp_path: Path) -> None:
    diverge = ("optimizer.warmup_epochs=0", "stages.2.optimizer.lr=1.0e+30", "train.max_skipped=3")
    result = train(tmp_path, "runtime=serial", *diverge)
    assert result.returncode == 1
    assert re.fullmatch(
        r"error: stage 2 failed at step 3: the loss is (nan|inf), and 3 steps in a row were skipped "
        r"\(train\.max_skipped\)\. Lower optimizer\.lr .*stages\.2\.optimizer",
        result.stderr.strip(),
    ), result.stderr


@pytest.mark.processes
def test_a_block_that_skips_steps_leaves_the_others_to_train_and_is_named_in_the_end(tmp_path: Path) -> None:
    diverge = ("optimizer.warmup_epochs=0", "stages.4.optimizer.lr=1.0e+30")
    result = train(tmp_path, *diverge)
    assert result.returncode == 0, result.stderr
    assert "stage 4 skipped 5 steps: loss or gradient not finite" in result.stdout
    assert [stage["skipped"] for stage in report(tmp_path)["stages"]] == [0, 0, 0, 5]
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert [stage.get("loss") is None for stage in last["stages"]] == [False, False, False, True]


def _feed_worker(coordinator: int) -> int:
    """The process that augments images for the coordinator."""
    children = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(coordinator)], capture_output=True, text=True
    )
    workers = [line.split()[0] for line in children.stdout.splitlines() if "workers.feed.worker_main" in line]
    assert len(workers) == 1, children.stdout
    return int(workers[0])
