"""Asked to stop, a run writes a snapshot, says how it goes on, and leaves; asked twice, it leaves at once."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.marks import slow
from tests.recovery import Trial, descendants, disturbed, fault, faults, undisturbed
from tests.runs import LIMIT, Process, wait_for_file, wait_for_steps
from workers.control.failures import STOPPING

pytestmark = pytest.mark.processes

GOES_ON = r"interrupted; 'onward resume \S+' goes on from the snapshot after (\d+) steps\n"
MIXED = (
    "stages.1={objective: {kind: byol, predictor: [32]}, optimizer: {kind: adamw, lr: 0.001}}",
    "stages.2={objective: {kind: supervised}, head: {projector: [10]}, optimizer: {kind: sgd, nesterov: true}}",
    "stages.3={objective: {kind: vicreg}, optimizer: {kind: lars_lr_in_momentum}}",
    "noise.std=0.3",
)


def left_in_order(trial: Trial, process: Process, until: str = "go") -> int:
    """The steps of the snapshot that the run has left with, which had been asked to in the middle of a pause."""
    process.wait_for(STOPPING)
    trial.go(until)
    _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, error
    found = re.fullmatch(GOES_ON, error)
    assert found, error
    return int(found[1])


def goes_on(trial: Trial, steps: int, whole: str, *overrides: str) -> None:
    result = trial.train(*overrides)
    assert result.returncode == 0, result.stderr
    assert f"going on from the snapshot after {steps} steps" in result.stdout
    assert trial.digest == whole


@pytest.mark.parametrize(
    "overrides",
    [(), slow(("mode=sequential", "train.max_steps=4")), ("runtime=serial", "snapshots.every=100")],
    ids=["pipelined", "sequential", "serial"],
)
def test_a_run_that_is_asked_to_stop_goes_on_later(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start(faults(trial.pause(1, 5)), *overrides)
        wait_for_steps(tmp_path, 5, process)
        process.send_signal(signal.SIGINT)
        steps = left_in_order(trial, process)
        assert 5 <= steps <= 11
        goes_on(trial, steps, undisturbed(*(o for o in overrides if o != "runtime=serial")), *overrides)


@pytest.mark.slow
def test_from_one_topology_to_the_next(tmp_path: Path) -> None:
    """Five times the same run, each in another shape, stopped through another process, in the middle of an epoch."""
    steps = ("train.max_steps=45",)
    shapes: list[tuple[tuple[str, ...], Callable[[Trial, Process], None]]] = [
        ((), lambda trial, process: process.send_signal(signal.SIGTERM)),
        (("runtime=serial",), lambda trial, process: process.send_signal(signal.SIGINT)),
        (("processes=2",), lambda trial, process: trial.signal("coordinator", signal.SIGTERM, 0, process)),
        (("link.kind=p2p",), lambda trial, process: trial.signal("stage_3", signal.SIGTERM, 0, process)),
    ]
    with disturbed(tmp_path) as trial:
        pauses = faults(*(trial.pause(1, at, f"go {n}") for n, at in enumerate((5, 14, 23, 32))))
        for number, (shape, stop) in enumerate(shapes):
            process = trial.start(*steps, *MIXED, pauses, *shape)
            wait_for_steps(tmp_path, 5 + 9 * number, process)
            stop(trial, process)
            assert 5 + 9 * number < left_in_order(trial, process, f"go {number}") <= 12 + 9 * number
        result = trial.train(*steps, *MIXED, pauses, "link.kind=rpc", "snapshots.every=7")
        assert result.returncode == 0, result.stderr
        assert trial.digest == undisturbed(*steps, *MIXED)


@pytest.mark.parametrize("overrides", [(), ("runtime=serial",)], ids=["pipelined", "serial"])
def test_the_second_signal_ends_it_at_once(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start(faults(trial.pause(1, 5)), *overrides)  # which nothing ends
        wait_for_steps(tmp_path, 5, process)
        process.send_signal(signal.SIGINT)
        process.wait_for(STOPPING)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=LIMIT / 2)  # sooner than the pause would end
        assert process.returncode == 130
        assert error == "interrupted at once\n"


def test_a_signal_before_the_first_step(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start(faults(trial.pause(1, 0)))
        wait_for_file(tmp_path, trial.run / "logs" / "coordinator.log", process)
        process.send_signal(signal.SIGTERM)
        process.wait_for(STOPPING)
        trial.go()
        _, error = process.communicate(timeout=LIMIT)
        assert process.returncode == 130
        # Between the first process and the first step nobody can wait for the signal: it may find either.
        found = re.fullmatch(GOES_ON, error)
        assert found or error == "interrupted; there is no snapshot yet\n"
        assert [path.name for path in trial.run.glob("snapshots/*")] == ([f"step_{found[1]}"] if found else [])
        assert not (trial.run / "final").exists()


def test_a_signal_at_the_last_step_lets_the_run_end(tmp_path: Path) -> None:
    with disturbed(tmp_path) as trial:
        process = trial.start(faults(trial.pause(4, 11)))
        wait_for_steps(tmp_path, 11, process)
        process.send_signal(signal.SIGTERM)
        process.wait_for(STOPPING)
        trial.go()
        _, error = process.communicate(timeout=LIMIT)
        assert (process.returncode, error) == (0, "")
        assert trial.digest == undisturbed()


def ordinary(trial: Trial, *overrides: str) -> Process:
    return trial.start(faults(trial.pause(1, 5)), *overrides)


def resumed(trial: Trial) -> Process:
    """`onward resume` of a run that had died before its first snapshot."""
    pause, dies = trial.pause(1, 5), fault("kill", 1, 2)
    assert trial.train(faults(dies, pause)).returncode == 1
    # The same list: which faults have been met is known by their places in it.
    return Process(["resume", str(trial.run), faults(dies, pause)], trial.environment, forked=True)


LAUNCHERS: dict[str, Callable[[Trial], Process]] = {
    "train": ordinary,
    "serial": lambda trial: ordinary(trial, "runtime=serial"),
    "restart=stage": lambda trial: ordinary(trial, "restart=stage"),
    "restart=job": lambda trial: ordinary(trial, "restart=job"),
    "resume": resumed,
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
AT_ONCE = {("train", "SIGUSR1", True), ("serial", "SIGUSR2", False), ("restart=stage", "SIGHUP", False),
           ("restart=job", "SIGTERM", False), ("resume", "SIGINT", False)}  # fmt: skip
"""One of each launcher and of each signal; `make test-all` tries every one with every other."""
COMBINATIONS = [
    (pytest.param if (launcher, number.name, everyone) in AT_ONCE else slow)(
        launcher, number, everyone, id=f"{launcher}-{number.name}-{'all' if everyone else 'command'}"
    )
    for launcher in LAUNCHERS
    for number in SIGNALS
    for everyone in (False, True)
]


@pytest.mark.parametrize(("launcher", "number", "everyone"), COMBINATIONS)
def test_whoever_asks_and_however_it_was_started_a_run_leaves_with_a_snapshot(
    tmp_path: Path, launcher: str, number: signal.Signals, everyone: bool
) -> None:
    """A scheduler warns with SIGUSR1, the command or all processes of the job, and they died of it without a word."""
    with disturbed(tmp_path) as trial:
        process = LAUNCHERS[launcher](trial)
        wait_for_steps(tmp_path, 5, process)
        for pid in [process.pid, *(descendants(process.pid) if everyone else [])]:
            os.kill(pid, number)
        assert 5 <= left_in_order(trial, process) <= 11
