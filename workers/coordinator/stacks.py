"""Has a process that hangs, and its neighbours, write down what their threads are doing, before anything is ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from workers.control.channel import ControlServer
from workers.control.failures import FailureReport
from workers.control.validation import read_message
from workers.coordinator.health import HELD, STOPPED
from workers.coordinator.silent_hosts import SHOWN
from workers.coordinator.supervisor import Supervisor
from workers.run.files import RunDir
from workers.run.stacks import StacksInLog, flight_record_of
from workers.topology.processes import TrainingProcess

ANSWER_SECONDS = 5.0
"""For the processes to write their stacks; no more than a quarter of the time after which one counts as hung."""
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class StacksWritten:
    """What a training process answers when it is asked for its stacks.

    Args:
        nccl: whether it has written what NCCL was doing, too.
    """

    nccl: bool = False


class StackRequests:
    """Asks for stacks.

    Args:
        processes: of the run, by name.
        control: reaches them all.
        supervisor: may send a signal to those that cannot answer.
        run: has their logs, unless they are on a host with a directory of its own.
        hosts: of every process; none where all are on one.
        limit: seconds without a message after which a process cannot answer one.
    """

    def __init__(
        self,
        processes: Mapping[str, TrainingProcess],
        control: ControlServer,
        supervisor: Supervisor,
        run: RunDir,
        hosts: Mapping[str, str],
        *,
        limit: float,
    ) -> None:
        self._processes, self._control, self._supervisor = processes, control, supervisor
        self._run, self._hosts, self._limit = run, hosts, limit
        self._answers: dict[str, StacksWritten] = {}

    def answered(self, name: str, message: dict[str, Any]) -> None:
        """Take note of the answer of a process; raises `MalformedMessage`."""
        self._answers[name] = read_message(StacksWritten, message)

    def explained(
        self, name: str, failure: FailureReport, silences: Mapping[str, float], receive: Callable[[float], object]
    ) -> FailureReport:
        """The failure of a process that hangs, with where the stacks are, if any are written in time.

        A process that gives no sign of life has no thread that could answer, and gets a signal.

        Args:
            name: of the process.
            failure: of it.
            silences: seconds since the last message of every process that is connected.
            receive: waits so many seconds for messages, and hands the answers to `answered`.
        """
        asked = [other for other in self._around(name) if other in silences]
        deaf = [other for other in asked if silences[other] > self._limit]
        logs = {other: StacksInLog(self._run.log(self._log_name(other)), self._run.path) for other in deaf}
        written: set[str] = set()
        self._answers.clear()
        for other in asked:
            self._control.send(other, {"type": "stacks"})
        if deaf:
            self._supervisor.signal_stacks(deaf)
        deadline = time.monotonic() + min(ANSWER_SECONDS, self._limit / 4)
        while len(written) < len(asked) and time.monotonic() < deadline:
            receive(LOOK_SECONDS)
            written |= self._answers.keys() | {other for other, log in logs.items() if log.complete()}
        cause = failure.cause.replace(STOPPED, HELD) if name in written else failure.cause
        return replace(failure, cause=f"{cause}{self._in_words(name, [o for o in asked if o in written])}")

    def _around(self, name: str) -> list[str]:
        """The process itself, its replicas, and those of the stages before and after it."""
        group = self._processes[name].stage_group
        near = (other for other, process in self._processes.items() if abs(process.stage_group - group) <= 1)
        return sorted(near, key=lambda other: other != name)

    def _in_words(self, name: str, written: list[str]) -> str:
        own = [self._place(name, f"logs/{self._log_name(name)}.log")] if name in written else []
        others = [self._place(other, f"logs/{self._log_name(other)}.log") for other in written if other != name]
        records = [
            self._place(other, f"logs/{flight_record_of(self._run, self._log_name(other)).name}")
            for other, answer in self._answers.items()
            if answer.nccl
        ]
        if own:
            kinds = [("its stacks are in", own), ("those of its neighbours in", others)]
        else:
            kinds = [("it wrote no stacks; its neighbours' are in", others)]
        told = [f"; {words} {_listed(files)}" for words, files in (*kinds, ("NCCL's record in", records)) if files]
        return "".join(told)

    def _place(self, name: str, file: str) -> str:
        return f"{file} on {self._hosts[name]}" if name in self._hosts else file

    def _log_name(self, name: str) -> str:
        return self._processes[name].log_name


def _listed(files: list[str]) -> str:
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return f"{', '.join(files[:SHOWN])}{more}"
