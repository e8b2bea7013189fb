"""The coordinator's main thread: hears every training process, and decides what happens when one is in trouble.

The first sign of a failure is often a neighbour's, so it listens a little longer before it names a cause. Then the
run ends, or (`restart: stage`) the process that is in trouble comes back from the last complete snapshot.
"""

from __future__ import annotations

import queue
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pipeline.config import Config
from workers.control.channel import ControlServer, ControlTimeout
from workers.control.failures import STOPPING, FailureReport, RunFailed, choose, failure_report, interruption
from workers.control.step_report import StepReport
from workers.control.validation import MalformedMessage, read_message
from workers.coordinator.batch_sender import BatchSender
from workers.coordinator.health import Beat, Health
from workers.coordinator.observers import Observation
from workers.coordinator.recorder import Recorder
from workers.coordinator.restarts import Restarts
from workers.snapshots.committer import SnapshotCommitter
from workers.snapshots.writer import SnapshotPart
from workers.topology.members import COORDINATOR, members, stage_name
from workers.topology.rendezvous import START_SECONDS

POLL_SECONDS = 0.2
GRACE_SECONDS = 1.0
"""After the first sign of a failure, how long to listen for a better explanation."""


class Supervisor(Protocol):
    """Who started the processes of the run."""

    def announce(self, control: str | tuple[str, int]) -> None:
        """The control channel listens at this address."""
        ...

    def notes(self) -> list[dict[str, Any]]:
        """What it had to say since the last call: who is gone (`gone`), and whether to stop (`leave`)."""
        ...

    def restart(self, names: list[str]) -> None:
        """Start these processes again, after ending what is left of them."""
        ...


@dataclass
class RunMonitor:
    """One run's training processes, from the first connection to the last word.

    Args:
        config: the run.
        control: where they connect.
        supervisor: who started them.
        snapshots: joins the parts that they write.
        recorder: gets their reports.
        sending: feeds them.
        total_steps, steps_per_epoch, classes, start_step: what they are told at the start.
        observation: is told what happens.
    """

    config: Config
    control: ControlServer
    supervisor: Supervisor
    snapshots: SnapshotCommitter
    recorder: Recorder
    sending: BatchSender
    total_steps: int
    steps_per_epoch: int
    classes: int
    start_step: int
    observation: Observation
    _signs: queue.Queue[tuple[str, FailureReport]] = field(default_factory=queue.Queue)
    """Who it is from, and what it says."""
    _silent: dict[str, float] = field(default_factory=dict)
    """Processes that ended without a word, and until when their parent may tell how."""
    _done: set[str] = field(default_factory=set)
    """Processes that have finished, or have said why they could not."""
    _leave_by: float | None = None

    def __post_init__(self) -> None:
        self._members = {member.name: member for member in members(self.config)}
        self._restarts = Restarts(list(self._members.values()), self.config.max_restarts, START_SECONDS)
        self._health = Health(self.config.hang_timeout)

    def gather(self) -> None:
        """Until every training process has connected and knows where to start.

        Raises:
            RunFailed: one ended before, or the run was asked to stop.
            ControlTimeout: names those that are missing.
        """
        deadline = time.monotonic() + START_SECONDS
        while self._members.keys() - self.control.connected():
            try:
                self.control.accept(set(self._members), POLL_SECONDS)
            except ControlTimeout:
                if time.monotonic() > deadline:
                    raise
            self._take_notes()
            if self._leave_by is not None:
                raise RunFailed(self.interrupted())
            if not self._signs.empty():
                raise RunFailed(self._signs.get()[1])
        for name in self._members:
            self._welcome(name, self.start_step)

    def follow(self) -> None:
        """Until all have finished, or have left after a snapshot. Raises `RunFailed`."""
        heard = time.monotonic()
        while not self._complete():
            for name, message in self.control.poll(POLL_SECONDS):
                if message is None or message.get("type") != "beat":
                    heard = time.monotonic()
                self._take(name, message)
            self._take_notes()
            self.observation.tick(self.recorder.backlog.oldest())
            self._admit()
            self._look_for_trouble()
            while not self._signs.empty():
                self._handle(*self._signs.get())
            if self._restarts.awaited or self._leave_by is not None:
                heard = time.monotonic()
            limit = self.config.link.timeout + START_SECONDS * (not self.recorder.latest)
            if time.monotonic() - heard > limit:
                behind = min(self._members, key=self._next_step)
                cause = f"no stage has reported anything for {limit:g} s (link.timeout)"
                raise RunFailed(FailureReport(behind, self._next_step(behind), "timeout", cause))

    def report_loss_of(self, name: str, cause: str) -> None:
        """Called from any thread: a process is known to be gone."""
        self._signs.put((name, FailureReport(name, self._next_step(name), "died", cause)))

    def sending_failed(self, step: int | None, error: Exception) -> None:
        """Called from the sending thread."""
        self._signs.put((COORDINATOR, failure_report(COORDINATOR, step, error)))

    def interrupted(self) -> FailureReport:
        """What a run that was asked to stop ends with."""
        said = interruption(self.snapshots.run.path, self.snapshots.committed)
        return FailureReport(COORDINATOR, None, "interrupted", said)

    def _welcome(self, name: str, step: int) -> None:
        attempt = self._restarts.attempt(self._members[name].unit)
        steps = {"step": step, "total_steps": self.total_steps, "steps_per_epoch": self.steps_per_epoch}
        self.control.send(name, {"type": "start", **steps, "attempt": attempt, "classes": self.classes})
        self._health.expect([name])

    def _complete(self) -> bool:
        header = self.sending.left
        reached = {n for n, member in self._members.items() if header is None or header.reaches(member.stages[0])}
        return self._done >= reached

    def _take(self, name: str, message: dict[str, Any] | None) -> None:
        if name in self._restarts.awaited:  # the last words of a process that is being replaced
            return
        if message is None:
            self._health.dismiss(name)
            if (why := self.control.dropped.pop(name, None)) is not None:
                self._signs.put((name, FailureReport(name, self._next_step(name), "raised", why)))
            elif not self._may_go(name):
                self._silent[name] = time.monotonic() + GRACE_SECONDS
            return
        try:
            self._take_message(name, message)
        except MalformedMessage as error:
            self._signs.put((name, FailureReport(name, self._next_step(name), "raised", f"it sent {error}")))

    def _take_message(self, name: str, message: dict[str, Any]) -> None:
        kind = message.get("type")
        self._health.heard(name, read_message(Beat, message) if kind == "beat" else None)
        if kind == "report":
            self.recorder.stage_report(StepReport.from_member(message, self._members[name].stages))
        elif kind == "snapshot":
            taken = SnapshotPart.from_message(message)
            if taken.stage not in self._members[name].stages:
                raise MalformedMessage(f"a snapshot of stage {taken.stage}, which is not its own")
            if taken.file is not None:
                self.recorder.snapshot_written(taken.stage, taken.seconds)
            self.snapshots.taken(taken)
        elif kind in ("done", "left"):
            self._done.add(name)
        elif kind == "leave":
            self._leave(str(message.get("why")))
        elif kind == "failure":
            self._health.dismiss(name)
            self._done.add(name) if self.config.restart != "stage" else None
            self._signs.put((name, FailureReport.from_message(message)))

    def _may_go(self, name: str) -> bool:
        """Whether the end of this process needs no word; where stages come back a neighbour may need even it."""
        return name in self._done and self.config.restart != "stage"

    def _take_notes(self) -> None:
        notes = self.supervisor.notes()
        if any(note["type"] == "gone" for note in notes):
            # What a process said before it ended is here by now, and names the cause better than its exit code does.
            while news := self.control.poll(0.0):
                for name, message in news:
                    self._take(name, message)
        for note in notes:
            if note["type"] == "leave":
                self._leave("asked to stop")
            elif not self._may_go(note["who"]) and note["who"] not in self._restarts.awaited:
                self._silent.pop(note["who"], None)
                self.report_loss_of(note["who"], note["cause"])

    def _admit(self) -> None:
        """Let processes in that come back."""
        if not (awaited := self._restarts.awaited):
            return
        with suppress(ControlTimeout):
            self.control.accept(awaited, POLL_SECONDS)
        for name in awaited & self.control.connected():
            self._restarts.back(name)
            self._welcome(name, self.snapshots.committed)

    def _look_for_trouble(self) -> None:
        now = time.monotonic()
        for name in [name for name, until in self._silent.items() if now > until]:
            self._give_up_on(name)
        if (hung := self._health.hung()) is not None:
            self._health.dismiss(hung.who)
            who = hung.who if hung.stage is None else stage_name(hung.stage)
            step = self._next_step(hung.who) if hung.step is None else hung.step
            self._signs.put((hung.who, FailureReport(who, step, "hung", hung.cause)))
        if (late := self._restarts.overdue()) is not None:
            raise RunFailed(FailureReport(late, None, "died", f"it did not come back within {START_SECONDS:g} s"))
        if self._leave_by is not None and now > self._leave_by:
            limit = f"{self.config.snapshots.leave_seconds:g} s (snapshots.leave_seconds)"
            self.observation.note(f"no snapshot was complete within {limit}: what was trained since the last is lost")
            raise RunFailed(self.interrupted())

    def _give_up_on(self, name: str) -> None:
        del self._silent[name]
        self.report_loss_of(name, "its process ended without a word")

    def _handle(self, name: str, sign: FailureReport) -> None:
        """Bring the process back that the sign is about, or end the run."""
        if name in self._restarts.awaited or (self._may_go(name) and sign.kind == "died"):
            return
        if self.config.restart != "stage" or sign.kind == "lost_neighbour":
            name, sign = self._explained(name, sign)
        hopeless = sign.kind == "bad_input" or name not in self._members or self._leave_by is not None
        if self.config.restart != "stage" or hopeless:
            raise RunFailed(sign)
        if self._restarts.exhausted(self.snapshots.committed):
            raise RunFailed(replace(sign, kind="given_up"))
        member = self._members[name]
        for gone in (names := self._restarts.begin(member.unit)):
            self._done.discard(gone)
            self._silent.pop(gone, None)
            self._health.dismiss(gone)
            self.control.dismiss(gone)  # its last process may still be there
        self.snapshots.forget(member.stages)
        self.recorder.restarted(member.stages)
        self.supervisor.restart(names)
        count = f"restart {self._restarts.in_a_row} of {self.config.max_restarts} without a new snapshot"
        text = f"{sign.error()}. It comes back from step {self.snapshots.committed} ({count})"
        for number, stage in enumerate(member.stages):
            also = text if number == 0 else f"stage {stage} comes back with stage {member.stages[0]}"
            self.observation.post("restart", "restart", also, stage, self.snapshots.committed)

    def _explained(self, name: str, sign: FailureReport) -> tuple[str, FailureReport]:
        """Listen a little longer: the first sign is often a neighbour's."""
        deadline = time.monotonic() + GRACE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            for who, message in self.control.poll(min(left, POLL_SECONDS)):
                self._take(who, message)
            self._take_notes()
        for who in list(self._silent):
            self._give_up_on(who)
        signs = [(name, sign)]
        while not self._signs.empty():
            signs.append(self._signs.get())
        chosen = choose([sign for _, sign in signs])
        return next((who, sign) for who, sign in signs if sign is chosen)

    def _leave(self, why: str) -> None:
        if self._leave_by is None:
            self._leave_by = time.monotonic() + self.config.snapshots.leave_seconds
            self.observation.note(f"{why}: {STOPPING}")
            self.sending.leave.set()

    def _next_step(self, name: str) -> int:
        member = self._members.get(name)
        latest = self.recorder.latest.get(member.stages[0]) if member else None
        return latest.step + 1 if latest else 0
