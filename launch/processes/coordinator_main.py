"""The coordinator's process: started with one JSON object on its standard input, ends with its parent."""

from __future__ import annotations

import logging
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from launch.failure import FailureRecorder, record_failure
from launch.prepare.run_dir import read_config
from launch.processes.child import listen_to_parent, read_start
from pipeline.config import Config
from workers.control.failures import FailureReport, raise_interrupted
from workers.control.start_messages import CoordinatorStart
from workers.coordinator.coordinator import Coordinator
from workers.observing.terminal.console import Console
from workers.run.files import RunDir, exit_at_once
from workers.run.json_lines import write_line
from workers.run.keys import remove_key
from workers.run.logs import log_to_stderr
from workers.run.signals import stop_signals
from workers.run.stacks import write_stacks_on_signal
from workers.topology.processes import COORDINATOR, training_processes
from workers.topology.rendezvous import Rendezvous

ORPHAN_SECONDS = 5.0
"""How long an orphaned coordinator may take to find and write down the cause."""


class Parent:
    """The process that started the coordinator, and the training processes.

    Args:
        answers: number of the pipe to it.
    """

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()  # which a signal handler may use

    def announce(self, control: str | tuple[str, int]) -> None:
        """See `Supervisor.announce`."""
        write_line(self._answers, {"control": control})

    def restart(self, names: list[str]) -> None:
        """See `Supervisor.restart`."""
        write_line(self._answers, {"restart": names})

    def signal_stacks(self, names: list[str]) -> None:
        """See `Supervisor.signal_stacks`."""
        write_line(self._answers, {"stacks": names})

    def beat(self, seconds: float) -> None:
        """Give a sign of life again and again, from a thread."""

        def send_heartbeats() -> None:
            with suppress(OSError):  # nobody listens any more
                while True:
                    write_line(self._answers, {"beat": True})
                    time.sleep(seconds)

        threading.Thread(target=send_heartbeats, name="heartbeat", daemon=True).start()

    def add_event(self, event: dict[str, Any]) -> None:
        """Keep an event for `events`; called from a thread or a signal handler."""
        self._events.put(event)

    def events(self) -> list[dict[str, Any]]:
        """See `Supervisor.events`."""
        found = []
        while not self._events.empty():
            found.append(self._events.get())
        return found


def main(answers: int) -> int:
    """Coordinate one run; returns the exit code."""
    start = read_start(CoordinatorStart)
    try:
        return _coordinate(start, answers)
    finally:
        _forget_key(start)  # so does the parent, unless it was killed


def _coordinate(start: CoordinatorStart, answers: int) -> int:
    run = RunDir(Path(start.run_dir))
    config = read_config(run.path)
    log_to_stderr()
    write_stacks_on_signal()
    parent = Parent(answers)
    if start.heartbeat_seconds:
        parent.beat(start.heartbeat_seconds)
    asking = stop_signals(config)
    for number in asking:
        signal.signal(number, lambda n, frame: _first_signal(parent, asking))
    logging.info("%s: process %d", COORDINATOR, os.getpid())
    rendezvous, terminal, failure_recorder = _rendezvous(start), Console.of_process(), FailureRecorder(run, COORDINATOR)
    device = torch.device(start.device)
    coordinator = Coordinator(
        config,
        run,
        rendezvous=rendezvous,
        device=device,
        terminal=terminal,
        supervisor=parent,
        start_step=start.start_step,
        failed=failure_recorder.failed,
        hosts=_hosts(config, start),
    )
    listen_to_parent(parent.add_event, lambda: _orphaned(coordinator, run, start))
    try:
        coordinator.run()
    except BaseException as error:
        return failure_recorder.failed(error)
    return 0


def _hosts(config: Config, start: CoordinatorStart) -> dict[str, str]:
    """The host of every training process; none where all are on one."""
    if not start.hosts:
        return {}
    names = [process.name for process in training_processes(config)]
    return dict(zip(names, start.hosts, strict=True))


def _forget_key(start: CoordinatorStart) -> None:
    """Remove the private folder of one host, or the key that several share."""
    if start.private_dir:
        shutil.rmtree(start.private_dir, ignore_errors=True)
    else:
        remove_key(RunDir(Path(start.run_dir)).key)


def _rendezvous(start: CoordinatorStart) -> Rendezvous:
    if not start.host:
        return Rendezvous.on_one_host(start.private_dir)
    return Rendezvous(
        private_dir="",
        key=bytes.fromhex(start.key),
        rpc_init="env://",
        control=(start.host, 0),
        store=start.store,
        host=start.host,
        apart=start.apart,
    )


def _first_signal(parent: Parent, asking: Sequence[int]) -> None:
    """Asks the run to stop in order; the next signal stops it at once."""
    for other in asking:
        signal.signal(other, raise_interrupted)
    parent.add_event({"type": "leave"})


def _orphaned(coordinator: Coordinator, run: RunDir, start: CoordinatorStart) -> None:
    parent, cause = start.parent, "its process ended without a word"
    if coordinator.monitor is not None:
        coordinator.monitor.process_lost(parent, cause)

    def give_up() -> None:
        if not run.failure.exists():
            record_failure(run, FailureReport(parent, None, "died", cause))
        _forget_key(start)
        exit_at_once(run, 1)

    timer = threading.Timer(ORPHAN_SECONDS, give_up)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    exit_code = main(int(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
