"""`onward train` after the checks: starts the run, starts it again if it may, and says how it ended.

Runs in the command line's process and needs no torch. A pipelined run is a coordinator and its training processes
(`supervise`); a serial one is a single process.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from launch.errors import EXIT_FAILED, EXIT_INTERRUPTED
from launch.failure import in_words, read_failure
from launch.prepare.resume import inspect, prepare
from launch.processes.fork_client import ForkServer
from launch.processes.measuring import measure_in_a_process
from launch.processes.supervise import Stop, Supervision, run_environment
from pipeline.config import Config
from pipeline.errors import ConfigError, printable
from pipeline.ordinary_files import open_to_write
from workers.control.failures import STOPPING
from workers.observing.terminal.verbosity import recover, say
from workers.observing.trace_file import merge_trace
from workers.run.environment import PREPARED, disable_core_dumps, interpreter, process_environment, without_launcher
from workers.run.files import RunDir, remove_temporaries
from workers.run.signals import WAKE, stop_signals
from workers.topology.processes import COORDINATOR, training_processes

START_STEP = "ONWARD_START_STEP"
"""The first step to train, where a stopped run goes on."""
RESTARTABLE = ("raised", "died", "hung", "timeout", "lost_neighbour")


def run_training(config: Config, run_dir: Path, start_step: int = 0, held: Sequence[int] = ()) -> int:
    """Train in the prepared `run_dir` from `start_step`; returns the exit code, after saying why if it is not 0.

    Args:
        config, run_dir, start_step: of the run.
        held: its lock, which outlives this process with those that it starts.
    """
    disable_core_dumps()
    run = RunDir(run_dir)
    count = len(training_processes(config))
    how = "in one process" if config.in_one_process else f"in {_processes(count)}, link {config.link.kind}"
    mode = {"sequential": " one after the other", "end_to_end": " with one loss"}.get(config.mode, "")
    say(f"training {config.num_stages} stages{mode} {how}; everything goes to {run_dir}")
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked += 1

    asking = stop_signals(config)
    previous = {number: signal.signal(number, ask) for number in asking}
    try:
        train = _serial if config.in_one_process else _pipelined
        code = train(config, run, start_step, stop, held)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    for note in merge_trace(run):
        say(note, important=True)
    return _tell(run, code)


def _processes(count: int) -> str:
    return f"{count} processes and a coordinator" if count > 1 else "a process and a coordinator"


def _pipelined(config: Config, run: RunDir, start_step: int, stop: Stop, held: Sequence[int]) -> int:
    with ForkServer(run_environment(config, run), run.log(COORDINATOR)) as server:
        return _repeat(config, run, start_step, stop, lambda step: Supervision(config, run, step, server, held))


def _repeat(config: Config, run: RunDir, start_step: int, stop: Stop, supervise: Callable[[int], Supervision]) -> int:
    """One attempt after the other, as long as each may be followed by another."""
    in_a_row = 0
    while True:
        with supervise(start_step) as supervision:
            code = supervision.follow(stop)
        failure = read_failure(run)
        if not code or config.restart == "none" or stop.asked or not failure or failure["kind"] not in RESTARTABLE:
            return code
        try:
            found = inspect(config, run.path)
            if found.finished:  # who died had written everything, or all but what is measured
                run.failure.unlink(missing_ok=True)
                return measure_in_a_process(config, run) if found.unmeasured else 0
            in_a_row = 1 if found.steps > start_step else in_a_row + 1
            if in_a_row > config.max_restarts:
                return code
            prepare(config, found)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            return code
        start_step = found.steps
        again = f"restart {in_a_row} of {config.max_restarts} without a new snapshot"
        print(f"{printable(failure['message'])}. All processes start again ({again})", flush=True)
        for note in found.notes:
            print(printable(note), flush=True)


def _serial(config: Config, run: RunDir, start_step: int, stop: Stop, held: Sequence[int]) -> int:
    environment = without_launcher(process_environment(config.threads))
    environment |= {PREPARED: str(run.path), START_STEP: str(start_step)}
    with open_to_write(run.log("serial"), run.path) as errors:
        child = subprocess.Popen(
            interpreter("launch.train", str(run.config)),
            env=environment,
            stdin=subprocess.PIPE,
            stderr=errors,
            pass_fds=held,
            start_new_session=True,
        )
    passed_on = 0
    while child.poll() is None:
        if stop.asked > passed_on:
            passed_on += 1
            # Of what it is sent itself it counts the second: whoever asks all processes asks it once.
            child.send_signal(WAKE) if passed_on == 1 else child.kill()
            if passed_on == 1:
                say(f"asked to stop: {STOPPING}", important=True)
        time.sleep(0.05)
    if child.returncode < 0:
        recover()
        remove_temporaries(run, child.pid)
    return EXIT_INTERRUPTED if passed_on > 1 else child.returncode


def _tell(run: RunDir, code: int) -> int:
    """Say in one line on stderr what ended the run; the exit code."""
    failure = read_failure(run)
    if failure and code:
        print(in_words(failure["kind"], printable(failure["message"])), file=sys.stderr)
        return int(failure["exit_code"])
    if code == EXIT_INTERRUPTED:
        print("interrupted at once", file=sys.stderr)
    elif code:
        problem = f"the run ended with exit code {code} and could not write down why"
        print(f"error: {problem}; see what it printed, and {run.logs}", file=sys.stderr)
        return EXIT_FAILED
    return code
