"""A stage that dies comes back alone, as often as it may, whoever else dies meanwhile; the bits stay the same."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.marks import slow
from tests.recovery import Trial, disturbed, fault, faults, undisturbed, undisturbed_bits
from tests.runs import LIMIT, digests, time_lost, wait_for_file, wait_for_steps
from workers.control.failures import STOPPING

pytestmark = pytest.mark.processes

STAGE, OFTEN = "restart=stage", "max_restarts=20"
BACK = re.compile(r"^stage (\d) failed at step (\d+): .*It comes back from step (\d+) \(restart \d+ of \d+", re.M)
TOGETHER = "All processes start again"


def survives(trial: Trial, *overrides: str, go_after: str | None = None) -> list[tuple[int, ...]]:
    """Run to the end: stage, step of the fault and step of the snapshot of everyone who came back."""
    process = trial.start(*overrides)
    if go_after is not None:
        wait_for_file(trial.folder, trial.run / go_after, process)
        trial.go()
    out, error = process.communicate(timeout=LIMIT)
    assert (process.returncode, error) == (0, "")
    assert TOGETHER not in out, out
    lines = [json.loads(line)["step"] for line in (trial.run / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(12))
    assert digests(trial.folder) == undisturbed_bits()[1]
    return [tuple(map(int, found)) for found in BACK.findall(out)]


@pytest.mark.parametrize("link", ["queue", slow("p2p")])
def test_stages_come_back_before_the_first_snapshot_between_two_and_after_each_other(tmp_path: Path, link: str) -> None:
    deaths = [("raise", 1, 2), ("kill", 4, 6), ("kill", 2, 9), ("kill", 2, 9), ("kill", 3, 9)]
    with disturbed(tmp_path) as trial:
        struck = faults(*(fault(*death) for death in deaths))
        back = survives(trial, STAGE, OFTEN, f"link.kind={link}", struck)
        assert sorted((stage, step) for stage, step, _ in back) == sorted(death[1:] for death in deaths)
        assert all(start in (0, step // 4 * 4 - 4, step // 4 * 4) for _, step, start in back)
        assert trial.digest == undisturbed()


@pytest.mark.parametrize("link", [slow("queue"), "p2p"])
def test_stages_come_back_when_those_around_them_are_done(tmp_path: Path, link: str) -> None:
    with disturbed(tmp_path) as trial:
        struck = faults(trial.pause(2, 11), fault("kill", 2, 11), fault("kill", 4, 11))
        back = survives(trial, STAGE, OFTEN, f"link.kind={link}", struck, go_after="final/stage_1.safetensors")
        assert {stage for stage, _, _ in back} == {2, 4}
        assert trial.digest == undisturbed()


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 3, 11])
@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_every_stage_at_every_time(tmp_path: Path, stage: int, step: int) -> None:
    with disturbed(tmp_path) as trial:
        (back,) = survives(trial, STAGE, faults(fault("kill", stage, step)))
        assert back[:2] == (stage, step)
        assert trial.digest == undisturbed()


@pytest.mark.slow
def test_two_die_at_once_one_hangs_and_one_is_stopped(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start(STAGE, OFTEN, "hang_timeout=6", faults(trial.pause(1, 5), fault("hang", 2, 8)))
        wait_for_steps(tmp_path, 5, process)
        for name, number in (("stage_4", signal.SIGKILL), ("stage_3", signal.SIGKILL), ("stage_1", signal.SIGSTOP)):
            os.kill(trial.pid(name), number)
        trial.go()
        out, error = process.communicate(timeout=LIMIT)
        assert (process.returncode, error) == (0, "")
        assert {stage for stage, _, _ in BACK.findall(out)} == {"1", "2", "3", "4"}
        assert re.search(r"stage 1 failed at step \d+: no sign of life for \d+ s \(hang_timeout\)", out), out
        assert re.search(r"stage 2 failed at step 8: it has been computing for \d+ s \(hang_timeout\)", out), out
        assert trial.digest == undisturbed()


def test_a_stage_that_is_done_dies_and_so_does_the_one_after_it(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start(STAGE, OFTEN, faults(trial.pause(3, 11)))
        wait_for_steps(tmp_path, 11, process)
        for name in ("stage_2", "stage_3"):
            os.kill(trial.pid(name), signal.SIGKILL)
        trial.go()  # it may have died before its pause, which then comes after its return
        out, error = process.communicate(timeout=LIMIT)
        assert (process.returncode, error) == (0, "")
        assert TOGETHER not in out
        assert {stage for stage, _, _ in BACK.findall(out)} == {"2", "3"}
        assert trial.digest == undisturbed()


@pytest.mark.parametrize("way", ["stage", slow("job")])
def test_who_fails_again_and_again_is_given_up_with_the_cause(tmp_path: Path, way: str) -> None:
    struck = faults(*[fault("raise", 3, 2)] * 2)
    with disturbed(tmp_path) as trial:
        process = trial.start(f"restart={way}", "max_restarts=1", struck)
        out, error = process.communicate(timeout=LIMIT)
        assert process.returncode == 1
        cause = "stage 3 failed at step 2: InjectedFault: the configuration asked for it (faults)"
        assert error == f"error: {cause}\n"
        assert out.count(cause) == 1
        assert "(restart 1 of 1 without a new snapshot)" in out


@pytest.mark.parametrize(
    ("way", "victim", "cause"),
    [
        ("job", "stage_2", r"stage 2 failed at step \d+: its process was killed by signal 9 \(SIGKILL\)"),
        ("stage", "coordinator", r"coordinator failed.*: its process was killed by signal 9 \(SIGKILL\)"),
    ],
    ids=["job", "coordinator"],
)
def test_all_processes_start_again(tmp_path: Path, way: str, victim: str, cause: str) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start(f"restart={way}", faults(trial.pause(1, 5)))
        trial.signal(victim, signal.SIGKILL, 5, process)
        out, error = process.communicate(timeout=LIMIT)
        assert (process.returncode, error) == (0, "")
        assert re.search(rf"^{cause}\. {TOGETHER} \(restart 1 of 3 without a new snapshot\)$", out, re.M), out
        assert "going on from the snapshot after 4 steps" in out
        assert not (trial.run / "failure.json").exists()
        assert trial.digest == undisturbed()
        assert time_lost(trial.folder) >= {"start", "restart"}


def test_a_replica_brings_its_whole_stage_back(tmp_path: Path) -> None:
    two = ("stages.2.replicas=2", "stages.3.replicas=2", "data.batch_size=64", "link.codec=int8")
    whole = undisturbed(*two, "runtime=pipelined")
    with disturbed(tmp_path) as trial:
        struck = faults(
            "{kind: kill, stage: 2, step: 6, replica: 2}", "{kind: kill, stage: 3, step: 9, replica: 1}",
        )  # fmt: skip
        result = trial.train(STAGE, "-v", *two, struck)
        out = result.stdout
        assert (result.returncode, result.stderr) == (0, "")
        assert TOGETHER not in out
        # Which replica is heard of first, the killed one or the one that waits for it, is between the processes.
        back = list(
            re.finditer(r"^stage (\d) replica [12] failed at step (\d): .*It comes back from step (\d)", out, re.M)
        )
        assert [found.group(1, 2) for found in back] == [("2", "6"), ("3", "9")], out
        for found in back:
            # Which snapshot is complete is between the disk and the stages; the newest of them counts.
            complete = re.findall(r"^the snapshot after (\d+) steps is complete$", out[: found.start()], re.M)
            assert found[3] == (complete[-1] if complete else "0"), out
        assert trial.digest == whole


@pytest.mark.slow
def test_a_stage_comes_back_in_mode_sequential(tmp_path: Path) -> None:
    mode = ("mode=sequential", "train.max_steps=4", "snapshots.every=3")
    struck = faults(fault("kill", 3, 9), fault("kill", 1, 13), fault("kill", 4, 13))
    with disturbed(tmp_path) as trial:
        process = trial.start(STAGE, *mode, struck)
        trial.signal("stage_4", signal.SIGKILL, 2, process)  # its turn has not come
        out, error = process.communicate(timeout=LIMIT)
        assert (process.returncode, error) == (0, "")
        assert TOGETHER not in out
        assert trial.digest == undisturbed(*mode)


@pytest.mark.slow
def test_a_run_is_stopped_while_a_stage_comes_back(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start(STAGE, faults(trial.pause(1, 5, "later")))
        trial.signal("stage_3", signal.SIGKILL, 5, process)
        process.wait_for("It comes back from step ")
        process.send_signal(signal.SIGTERM)
        process.wait_for(STOPPING)
        trial.go("later")
        _, error = process.communicate(timeout=LIMIT)
        assert process.returncode == 130
        assert re.match("interrupted; 'onward resume .*' goes on from the snapshot after ", error)
        assert trial.train(STAGE).returncode == 0
        assert trial.digest == undisturbed()
