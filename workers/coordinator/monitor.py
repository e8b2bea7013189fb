"""The coordinator's main thread: receives messages of all training processes, and decides what to do about failures.

The first report of a failure often comes from a neighbour of the process that failed, so the monitor collects reports
for `GRACE_SECONDS` before it names the root cause. Then it decides:

    report                          restart: none, job     restart: stage
    exception, hung, died           wait, end the run      restart its stage group at once
    lost neighbour                  wait, end the run      wait, restart the stage group of the root cause
    hopeless, own failure, stopped  wait, end the run      end the run
    restarted too often in a row    -                      end the run

"End the run" raises `RunFailed`, after which `restart: job` starts all processes again.
"""

from __future__ import annotations

import queue
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.config import Config
from workers.control.channel import ControlServer, ControlTimeout
from workers.control.failures import STOPPING, FailureReport, RunFailed, failure_report, root_cause, stop_message
from workers.control.step_report import StepReport
from workers.control.validation import MalformedMessage, read_message
from workers.coordinator.batch_sender import BatchSender
from workers.coordinator.health import Health, Heartbeat
from workers.coordinator.observers import Observation
from workers.coordinator.recorder import Recorder
from workers.coordinator.restarts import Restarts
from workers.coordinator.silent_hosts import behind_it, not_connected, unreachable
from workers.coordinator.stacks import StackRequests
from workers.coordinator.supervisor import Supervisor
from workers.snapshots.committer import SnapshotCommitter
from workers.snapshots.writer import SnapshotPart
from workers.topology.processes import COORDINATOR, training_processes
from workers.topology.rendezvous import START_SECONDS

POLL_SECONDS = 0.2
GRACE_SECONDS = 1.0
"""How long to collect further reports after the first failure."""


@dataclass(kw_only=True)
class RunMonitor:
    """Watches the training processes of a run, from the first connection to the end.

    Args:
        config: of the run.
        control: the control channel.
        supervisor: the process that started them.
        snapshots: completes the snapshots that they write.
        recorder: gets their step reports.
        batch_sender: sends them batches.
        total_steps, steps_per_epoch, classes, start_step, parts: sent to every process (`parts`: address for them).
        observation: gets notes and events for the user.
        hosts: of every training process, by rank; none where all are on one.
    """

    config: Config
    control: ControlServer
    supervisor: Supervisor
    snapshots: SnapshotCommitter
    recorder: Recorder
    batch_sender: BatchSender
    total_steps: int
    steps_per_epoch: int
    classes: int
    start_step: int
    observation: Observation
    parts: str | tuple[str, int] | None = None
    hosts: dict[str, str] = field(default_factory=dict)
    _failures: queue.Queue[tuple[str, FailureReport]] = field(default_factory=queue.Queue)
    """Reported failures, with the name of the process that each is about."""
    _ended_silently: dict[str, float] = field(default_factory=dict)
    """Processes whose connection ended without a message, and until when their parent may report how."""
    _done: set[str] = field(default_factory=set)
    """Processes that have finished, or have reported their failure."""
    _stop_deadline: float | None = None

    def __post_init__(self) -> None:
        self._processes = {process.name: process for process in training_processes(self.config)}
        self._restarts = Restarts(list(self._processes.values()), self.config.max_restarts, START_SECONDS)
        self._health = Health(self.config.hang_timeout)
        around = self.control, self.supervisor, self.snapshots.run, self.hosts
        self._stacks = StackRequests(self._processes, *around, limit=self.config.hang_timeout)

    def connect_all(self) -> None:
        """Wait until every training process has connected, and send each its start. Raises `RunFailed`."""
        deadline = time.monotonic() + START_SECONDS
        while missing := self._processes.keys() - self.control.connected():
            if time.monotonic() > deadline:
                raise RunFailed(not_connected(sorted(missing), self.hosts, START_SECONDS))
            with suppress(ControlTimeout):
                self.control.accept(set(self._processes), POLL_SECONDS)
            self._handle_events()
            if self._stop_deadline is not None:
                raise RunFailed(self.interrupted())
            if not self._failures.empty():
                raise RunFailed(self._failures.get()[1])
        for name in self._processes:
            self._send_start(name, self.start_step)

    def watch(self) -> None:
        """Process messages until all processes have finished or stopped after a snapshot. Raises `RunFailed`."""
        last_message_at = time.monotonic()
        while not self._all_done():
            for name, message in self.control.poll(POLL_SECONDS):
                if message is None or message.get("type") != "beat":
                    last_message_at = time.monotonic()
                self._handle_message(name, message)
            self._handle_events()
            self.observation.tick(self.recorder.backlog.oldest())
            self._admit_restarted()
            self._check_deadlines()
            while not self._failures.empty():
                self._restart_or_fail(*self._failures.get())
            if self._restarts.awaited or self._stop_deadline is not None:
                last_message_at = time.monotonic()
            limit = self.config.link.timeout + START_SECONDS * (not self.recorder.latest)
            if time.monotonic() - last_message_at > limit:
                behind = min(self._processes, key=self._next_step)
                cause = f"no stage has reported anything for {limit:g} s (link.timeout)"
                failure = FailureReport(behind, self._next_step(behind), "timeout", cause)
                raise RunFailed(self._explained(behind, failure))

    def process_lost(self, name: str, cause: str, kind: str = "died") -> None:
        """A process has died, or ended by itself (another `kind`); may be called from any thread."""
        self._failures.put((name, FailureReport(name, self._next_step(name), kind, cause)))

    def sender_failed(self, step: int | None, error: Exception) -> None:
        """The sending thread has failed; called from it."""
        self._failures.put((COORDINATOR, failure_report(COORDINATOR, step, error)))

    def interrupted(self) -> FailureReport:
        """The failure with which a run ends that was asked to stop."""
        message = stop_message(self.snapshots.run.path, self.snapshots.committed)
        return FailureReport(COORDINATOR, None, "interrupted", message)

    def _send_start(self, name: str, step: int) -> None:
        more = {"attempt": self._restarts.attempt(self._processes[name].stage_group), "parts": self.parts}
        steps = {"step": step, "total_steps": self.total_steps, "steps_per_epoch": self.steps_per_epoch}
        self.control.send(name, {"type": "start", **steps, "classes": self.classes, **more})
        self._health.add([name])

    def _all_done(self) -> bool:
        header = self.batch_sender.stopped_at
        reached = {n for n, process in self._processes.items() if header is None or header.reaches(process.stages[0])}
        return self._done >= reached

    def _explained(self, name: str, failure: FailureReport) -> FailureReport:
        """The failure of a process that hangs, with where its stacks are."""
        return self._stacks.explained(name, failure, self._health.silences(), self._receive)

    def _receive(self, timeout: float) -> None:
        for name, message in self.control.poll(timeout):
            self._handle_message(name, message)

    def _handle_message(self, name: str, message: dict[str, Any] | None) -> None:
        if name in self._restarts.awaited:  # from a process that is being replaced
            return
        if message is None:
            self._health.remove(name)
            if (reason := self.control.dropped.pop(name, None)) is not None:
                self._failures.put((name, FailureReport(name, self._next_step(name), "raised", reason)))
            elif not self._may_exit(name):
                self._ended_silently[name] = time.monotonic() + GRACE_SECONDS
            return
        try:
            self._dispatch(name, message)
        except MalformedMessage as error:
            self._failures.put((name, FailureReport(name, self._next_step(name), "raised", f"it sent {error}")))

    def _dispatch(self, name: str, message: dict[str, Any]) -> None:
        kind = message.get("type")
        self._health.record(name, read_message(Heartbeat, message) if kind == "beat" else None)
        if kind == "report":
            self.recorder.stage_report(StepReport.from_process(message, self._processes[name].stages))
        elif kind == "snapshot":
            part = SnapshotPart.from_message(message)
            if part.stage not in self._processes[name].stages:
                raise MalformedMessage(f"a snapshot of stage {part.stage}, which is not its own")
            if part.file is not None:
                self.recorder.snapshot_written(part.stage, part.seconds)
            self.snapshots.add_part(part)
        elif kind == "stacks":
            self._stacks.answered(name, message)
        elif kind in ("done", "left"):
            self._done.add(name)
        elif kind == "leave":
            self._begin_stop(str(message.get("why")))
        elif kind == "note":
            self.observation.note(str(message.get("text")))
        elif kind == "failure":
            self._health.remove(name)
            self._done.add(name) if self.config.restart != "stage" else None
            self._failures.put((name, FailureReport.from_message(message)))

    def _may_exit(self, name: str) -> bool:
        """Whether a process may end now; with `restart: stage` a restarted neighbour may need even one that is done."""
        return name in self._done and self.config.restart != "stage"

    def _handle_events(self) -> None:
        events = self.supervisor.events()
        if any(event["type"] == "gone" for event in events):
            # What a process sent before it ended has arrived, and explains more than its exit code.
            while messages := self.control.poll(0.0):
                for name, message in messages:
                    self._handle_message(name, message)
        for event in events:
            if event["type"] == "leave":
                self._begin_stop("asked to stop")
            elif not self._may_exit(event["who"]) and not self._is_replaced(event):
                self._ended_silently.pop(event["who"], None)
                self._restarts.forget(event["who"])  # nobody will connect
                self.process_lost(event["who"], event["cause"], event.get("kind", "died"))

    def _is_replaced(self, event: dict[str, Any]) -> bool:
        """Whether an event is about a process that a restart has replaced; it may arrive after that restart."""
        return int(event.get("attempt", 0)) < self._restarts.attempt(self._processes[event["who"]].stage_group)

    def _admit_restarted(self) -> None:
        """Admit processes that were restarted."""
        if not (awaited := self._restarts.awaited):
            return
        with suppress(ControlTimeout):
            self.control.accept(awaited, POLL_SECONDS)
        for name in awaited & self.control.connected():
            self._restarts.forget(name)
            self._send_start(name, self.snapshots.committed)

    def _check_deadlines(self) -> None:
        self._report_silent_ends(time.monotonic())
        if (hung := self._health.find_hung()) is not None:
            step = self._next_step(hung.who) if hung.step is None else hung.step
            lost = unreachable(self.hosts, self._health.silences(), self._health.limit / 2, step)
            self._failures.put((hung.who, lost or self._explained(hung.who, hung.failure(step))))
            self._health.remove(hung.who)
        if (late := self._restarts.overdue()) is not None:
            raise RunFailed(FailureReport(late, None, "died", f"it did not come back within {START_SECONDS:g} s"))
        if self._stop_deadline is not None and time.monotonic() > self._stop_deadline:
            limit = f"{self.config.snapshots.leave_seconds:g} s (snapshots.leave_seconds)"
            self.observation.note(f"no snapshot was complete within {limit}: what was trained since the last is lost")
            raise RunFailed(self.interrupted())

    def _report_silent_ends(self, now: float) -> None:
        for name in [name for name, until in self._ended_silently.items() if now > until]:
            del self._ended_silently[name]
            self.process_lost(name, "its process ended without a word")

    def _restart_or_fail(self, name: str, failure: FailureReport) -> None:
        """Restart the process that has failed, or end the run; see the table at the top."""
        if name in self._restarts.awaited or (self._may_exit(name) and failure.kind == "died"):
            return
        if self.config.restart != "stage" or failure.kind == "lost_neighbour":
            name, failure = self._find_cause(name, failure)
        hopeless = failure.hopeless or name not in self._processes or self._stop_deadline is not None
        if self.config.restart != "stage" or hopeless:
            raise RunFailed(failure)
        if self._restarts.exhausted(self.snapshots.committed):
            raise RunFailed(replace(failure, kind="given_up"))
        process = self._processes[name]
        for restarted in (names := self._restarts.begin(process.stage_group)):
            self._done.discard(restarted)
            self._ended_silently.pop(restarted, None)
            self._health.remove(restarted)
            self.control.dismiss(restarted)  # the old process may still be connected
        self.snapshots.drop_parts_of(process.stages)
        self.recorder.restarted(process.stages)
        self.supervisor.restart(names)
        for stage, sentence in self._restarts.in_words(process.stages, failure, self.snapshots.committed):
            self.observation.post("restart", "restart", sentence, stage, self.snapshots.committed)

    def _find_cause(self, name: str, failure: FailureReport) -> tuple[str, FailureReport]:
        """Collect further reports for `GRACE_SECONDS`, and choose the root cause."""
        deadline = time.monotonic() + GRACE_SECONDS
        while (remaining := deadline - time.monotonic()) > 0:
            self._receive(min(remaining, POLL_SECONDS))
            self._handle_events()
        self._report_silent_ends(float("inf"))
        failures = [(name, failure)]
        while not self._failures.empty():
            failures.append(self._failures.get())
        chosen = root_cause([failure for _, failure in failures])
        if (lost := behind_it(chosen, self.hosts, self._health.silences())) is not None:
            return name, lost
        return next((who, failure) for who, failure in failures if failure is chosen)

    def _begin_stop(self, reason: str) -> None:
        if self._stop_deadline is None:
            self._stop_deadline = time.monotonic() + self.config.snapshots.leave_seconds
            self.observation.note(f"{reason}: {STOPPING}")
            self.batch_sender.stop_requested.set()

    def _next_step(self, name: str) -> int:
        process = self._processes.get(name)
        latest = self.recorder.latest.get(process.stages[0]) if process else None
        return latest.step + 1 if latest else 0
