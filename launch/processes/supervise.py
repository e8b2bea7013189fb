"""One attempt at a pipelined run on this host: starts its processes, restarts some, and makes sure that all end."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from launch.failure import exit_code, write_failure
from launch.prepare.placement import device_of
from launch.prepare.prepared_run import PreparedRun
from launch.prepare.run_dir import clear_unfinished
from launch.processes.child import Child, ended
from launch.processes.fork_client import ForkServer
from pipeline.config import Config
from pipeline.errors import UserError
from workers.control.failures import FailureReport
from workers.control.start_messages import CoordinatorStart, StageStart
from workers.coordinator.health import HELD, STOPPED, no_sign_of_life
from workers.links.wire import MAX_UNIX_PATH
from workers.observing.terminal.verbosity import detail, recover
from workers.run.environment import PREPARED, process_environment, without_launcher
from workers.run.files import RunDir
from workers.run.keys import write_key
from workers.run.private import make_private, temporary_places
from workers.run.signals import STACKS
from workers.run.stacks import StacksInLog
from workers.run.suspension import SuspensionDetector
from workers.topology.processes import COORDINATOR, KEY_FILE, TrainingProcess, training_processes

NAME_BYTES = 50
"""Bytes of a path to a socket that are reserved for the folder of a run and the longest name in it."""
POLL_SECONDS = 0.02
LEAVE_SECONDS = 15.0
"""After the coordinator has ended, the others notice it and end; those that are left after this time are killed."""

STACKS_SECONDS = 1.0
"""For a coordinator that hangs to write the stacks of its threads."""


@dataclass
class Stop:
    """How often the user has asked to stop."""

    asked: int = 0


class Supervision:
    """The processes of one attempt; a context manager that ends all of them.

    Args:
        prepared: the run; the coordinator holds its lock too.
        server: forks the processes; started with `run_environment`.
    """

    def __init__(self, prepared: PreparedRun, server: ForkServer) -> None:
        self.config, self.run, self._prepared, self._server = prepared.config, prepared.run, prepared, server
        self._everyone = {process.name: process for process in training_processes(self.config)}
        self._children: dict[str, Child] = {}
        self._attempts = Counter[str]()
        """How often each has been started again."""
        self._told: set[Child] = set()
        """Whose end the coordinator knows of; not by number, for numbers come again."""
        self._heard: float | None = None
        """When the coordinator last gave a sign of life; None until its first."""
        self._killed = False
        """Whether the coordinator could not leave the terminal as it was."""

    def __enter__(self) -> Self:
        self._private = make_private_dir()
        self._environment = run_environment(self.config, self.run)
        start = CoordinatorStart(
            run_dir=str(self.run.path.absolute()),
            private_dir=self._private,
            device=device_of(training_processes(self.config)[0], self._prepared.placements),
            start_step=self._prepared.start_step,
            parent="onward train",
            heartbeat_seconds=min(1.0, self.config.hang_timeout / 4),
        )
        log = self.run.log(COORDINATOR)
        with ExitStack() as undo:
            undo.callback(clear_unfinished, self.run)
            undo.callback(shutil.rmtree, self._private, ignore_errors=True)
            self._coordinator = Child(
                "launch.processes.coordinator_main",
                start,
                self._environment,
                log,
                server=self._server,
                held=self._prepared.lock,
            )
            undo.callback(self._coordinator.close)
            undo.callback(self._close_children)
            for process in self._everyone.values():
                detail(f"{process.name}: {self._start(process)}")
            detail(f"{COORDINATOR}: process {self._coordinator.process.pid}, log {log}")
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()
        if self._killed:
            recover()

    def follow(self, stop: Stop) -> int:
        """Until the run has ended; the coordinator's exit code."""
        passed_on, slept = False, SuspensionDetector(min(2.0, self.config.hang_timeout / 2))
        while self._coordinator.process.poll() is None:
            if stop.asked and not passed_on:
                self._coordinator.send({"type": "leave"})
                passed_on = True
            if stop.asked > 1:
                return self._ended_with(FailureReport(COORDINATOR, None, "interrupted", "interrupted at once"))
            self._report_the_gone()
            self._obey()
            if (stood := slept.seconds()) and self._heard is not None:
                self._heard += stood
            silent = 0.0 if self._heard is None else time.monotonic() - self._heard
            if silent > self.config.hang_timeout:
                cause = self._explained(no_sign_of_life(silent))
                self._coordinator.close()
                return self._ended_with(FailureReport(COORDINATOR, None, "hung", cause))
            time.sleep(POLL_SECONDS)
        self._await_the_rest()
        code = self._coordinator.wait()
        if code < 0:
            return self._ended_with(FailureReport(COORDINATOR, None, "died", ended(code)))
        return code

    def _ended_with(self, failure: FailureReport) -> int:
        """The coordinator cannot say it itself."""
        self._killed = True
        write_failure(self.run, failure)
        return exit_code(failure)

    def _explained(self, cause: str) -> str:
        """Why the coordinator gives no sign of life, with where its stacks are, if it can still write them."""
        log, deadline = StacksInLog(self.run.log(COORDINATOR), self.run.path), time.monotonic() + STACKS_SECONDS
        self._coordinator.process.send_signal(STACKS)
        while time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            if log.complete():
                return f"{cause.replace(STOPPED, HELD)}; its stacks are in logs/{COORDINATOR}.log"
        return cause

    def _obey(self) -> None:
        """Do what the coordinator asks for."""
        for message in self._coordinator.messages():
            self._heard = time.monotonic()
            for name in message.get("restart", ()):
                self._children[name].close()
                self._attempts[name] += 1
                self._start(self._everyone[name])
            for name in message.get("stacks", ()):
                self._children[name].process.send_signal(STACKS)

    def _start(self, process: TrainingProcess) -> str:
        """Start its process; where that is, in words."""
        start = StageStart(
            run_dir=str(self.run.path.absolute()),
            private_dir=self._private,
            rank=process.rank,
            device=device_of(process, self._prepared.placements),
        )
        environment = {**self._environment, "RANK": str(process.rank), "LOCAL_RANK": str(process.rank)}
        log = self.run.log(process.log_name)
        child = Child("launch.processes.stage_main", start, environment, log, quiet=True, server=self._server)
        self._children[process.name] = child
        return f"process {child.process.pid} on {start.device}, log {log}"

    def _close_children(self) -> None:
        for child in self._children.values():
            child.close()

    def _report_the_gone(self) -> None:
        for name, child in self._children.items():
            code = child.process.poll()
            if code and child not in self._told:
                self._told.add(child)
                attempt = self._attempts[name]
                self._coordinator.send({"type": "gone", "who": name, "cause": ended(code), "attempt": attempt})

    def _await_the_rest(self) -> None:
        deadline = time.monotonic() + LEAVE_SECONDS
        for child in self._children.values():
            child.wait(max(deadline - time.monotonic(), 0.0))


def run_environment(config: Config, run: RunDir) -> dict[str, str]:
    """The environment of every process of a run."""
    environment = process_environment(config.threads, len(training_processes(config)))
    return {**without_launcher(environment), PREPARED: str(run.path), **LOOPBACK}


LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "TP_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""On one host every library listens on the loopback interface only."""


def make_private_dir() -> str:
    """A new folder that only this user can enter, with the key that authenticates the connections of the run."""
    private = _short_dir()
    write_key(Path(private) / KEY_FILE)
    return private


def _short_dir() -> str:
    """A new folder with mode 0700, which no other user can replace, with a path short enough for sockets in it.

    Raises:
        UserError: there is none.
    """
    problems, short = [], []
    for place in temporary_places():
        if len(os.fsencode(place)) > MAX_UNIX_PATH - NAME_BYTES:
            problems.append(f"the path '{place}' is too long for a socket")
        else:
            short.append(place)
    if private := make_private("onward-", short, problems):
        return private
    raise UserError(
        f"no folder for the sockets of the run: {'; '.join(problems)}. Set TMPDIR to a folder of your own with a path "
        f"of at most {MAX_UNIX_PATH - NAME_BYTES} bytes"
    )
