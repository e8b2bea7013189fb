"""`onward train` after the checks: starts the processes of a run, restarts it if it may, and prints how it ended.

It runs in the process of the command line and needs no torch. A pipelined run is a coordinator and its training
processes (`supervise`); a serial one is a single process.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

from launch.errors import EXIT_FAILED, EXIT_INTERRUPTED, print_error
from launch.failure import in_words, read_failure
from launch.prepare.prepared_run import PreparedRun
from launch.prepare.resume import check_same_run, find_resume_point, roll_back
from launch.processes.fork_client import ForkServer
from launch.processes.measuring import finish
from launch.processes.out_of_memory import add_account
from launch.processes.supervise import Stop, Supervision, run_environment
from pipeline.errors import ConfigError
from pipeline.ordinary_files import open_to_write
from workers.control.failures import STOPPING
from workers.observing.terminal.verbosity import recover, say
from workers.observing.trace_file import merge_trace
from workers.run.environment import disable_core_dumps, interpreter, process_environment, without_launcher
from workers.run.files import RunDir, remove_temporaries
from workers.run.signals import WAKE, stop_signals
from workers.topology.processes import COORDINATOR, training_processes

RESTARTABLE = ("raised", "died", "hung", "timeout", "lost_neighbour")


def run_training(prepared: PreparedRun) -> int:
    """Train a run; returns the exit code, after printing why if it is not 0."""
    disable_core_dumps()
    config, run = prepared.config, prepared.run
    count = len(training_processes(config))
    how = "in one process" if config.in_one_process else f"in {_processes(count)}, link {config.link.kind}"
    mode = {"sequential": " one after the other", "end_to_end": " with one loss"}.get(config.mode, "")
    say(f"training {config.num_stages} stages{mode} {how}; everything goes to {run.path}")
    stop = Stop()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.asked += 1

    asking = stop_signals(config)
    previous = {number: signal.signal(number, request_stop) for number in asking}
    try:
        train = _serial if config.in_one_process else _pipelined
        code = train(prepared, stop)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    for note in merge_trace(run):
        say(note, important=True)
    if code:
        add_account(run)
    return _report_end(run, code)


def _processes(count: int) -> str:
    return f"{count} processes and a coordinator" if count > 1 else "a process and a coordinator"


def _pipelined(prepared: PreparedRun, stop: Stop) -> int:
    run = prepared.run
    with ForkServer(run_environment(prepared.config, run), run.log(COORDINATOR)) as server:
        return _repeat(prepared, stop, lambda attempt: Supervision(attempt, server))


def _repeat(prepared: PreparedRun, stop: Stop, supervise: Callable[[PreparedRun], Supervision]) -> int:
    """One attempt after the other, as long as the run may be restarted; returns the exit code of the last one."""
    config, run, in_a_row = prepared.config, prepared.run, 0
    while True:
        with supervise(prepared) as supervision:
            code = supervision.follow(stop)
        failure = read_failure(run)
        if not code or config.restart == "none" or stop.asked or not failure or failure["kind"] not in RESTARTABLE:
            return code
        try:
            check_same_run(config, run)  # the next processes read its configuration again, which may have been changed
            point = find_resume_point(run)
            if point.finished:  # the process that died had written everything, or all but what is measured
                run.failure.unlink(missing_ok=True)
                return finish(replace(prepared, unmeasured=point.unmeasured))
            in_a_row = 1 if point.steps > prepared.start_step else in_a_row + 1
            if in_a_row > config.max_restarts:
                return code
            roll_back(config, run, point.steps, restarted=True)
        except ConfigError as error:
            print_error(f"error: {error}")
            return code
        prepared = replace(prepared, start_step=point.steps)
        again = f"restart {in_a_row} of {config.max_restarts} without a new snapshot"
        for sentence in (f"{failure['message']}. All processes start again ({again})", *point.notes):
            say(sentence, important=True)


def _serial(prepared: PreparedRun, stop: Stop) -> int:
    run = prepared.run
    environment = {**without_launcher(process_environment(prepared.config.threads)), **prepared.environment()}
    with open_to_write(run.log("serial"), run.path) as errors:
        child = subprocess.Popen(
            interpreter("launch.train", str(run.config)),
            env=environment,
            stdin=subprocess.PIPE,
            stderr=errors,
            pass_fds=prepared.lock,
            start_new_session=True,
        )
    passed_on = 0
    while child.poll() is None:
        if stop.asked > passed_on:
            passed_on += 1
            # The process counts requests itself: a signal to all processes of the run reaches it too, once.
            child.send_signal(WAKE) if passed_on == 1 else child.kill()
            if passed_on == 1:
                say(f"asked to stop: {STOPPING}", important=True)
        time.sleep(0.05)
    if child.returncode < 0:
        recover()
        remove_temporaries(run, child.pid)
    return EXIT_INTERRUPTED if passed_on > 1 else child.returncode


def _report_end(run: RunDir, code: int) -> int:
    """Print in one line on stderr what ended the run; returns the exit code."""
    failure = read_failure(run)
    if failure and code:
        print_error(in_words(failure["kind"], failure["message"]))
        return int(failure["exit_code"])
    if code == EXIT_INTERRUPTED:
        print_error("interrupted at once")
    elif code:
        problem = f"the run ended with exit code {code} and could not write down why"
        print_error(f"error: {problem}; see what it printed, and {run.logs}")
        return EXIT_FAILED
    return code
