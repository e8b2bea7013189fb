"""The training loop of one process: receive, forward, send, update, report.

Activations are sent before the local update, so the next stage computes while this one updates. R receives, F is the
forward pass, S sends, U is loss, backward and optimizer step; the number is the step:

    stage 1   R0 F0 S0 U0 | R1 F1 S1 U1 | R2 F2 S2 U2          time ->
    stage 2            R0 F0 S0 U0 | R1 F1 S1 U1 | ...
    stage 3                     R0 F0 U0 | ...                 (the last stage sends nothing)

F of step t uses the parameters after U of step t - 1, whatever the other stages do at that time: so a pipelined run
equals a serial one. No gradient is sent back: links carry batches in one direction only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from pipeline.stage.codecs import round_trip
from pipeline.stage.report import StageReport
from pipeline.stage.stage import Stage
from workers.control.step_report import StageTimes
from workers.links.base import LinkTimeout, Receiver, Sender
from workers.links.messages import Header, Message
from workers.observing.memory import ProcessMemory
from workers.observing.trace import NO_TRACE, Tracer
from workers.run.faults import Faults
from workers.topology.processes import stage_name
from workers.topology.rendezvous import START_SECONDS


class ReportChannel(Protocol):
    """The part of the control channel that a stage uses."""

    def send(self, message: dict[str, Any]) -> None:
        """Send one message to the coordinator."""
        ...


class Snapshots(Protocol):
    """The part of the snapshot writer that a stage uses."""

    def take(self, stage: Stage, steps: int) -> None:
        """Copy the state after `steps` steps, to be written later."""
        ...

    def close(self) -> None:
        """Wait until all snapshots are written."""
        ...


@dataclass
class Activity:
    """What a process is doing; written by the training loop, read by the thread that sends heartbeats."""

    stage: int
    step: int | None = None
    """The current step; None before the first."""
    since: float | None = None
    """When it started to compute, by `time.monotonic`; None while it waits for a neighbour."""
    first: bool = True
    """Whether this kind of step, with or without an update of the stage, is the first in this process."""


@dataclass(kw_only=True)
class StageWorker:
    """Runs neighbouring stages between two links.

    Args:
        stages: in order; usually one.
        receiver: from the previous stage, or the coordinator.
        sender: to the next stage; None for the last stage.
        control: gets the step reports; None for a replica that does not report.
        timeout: seconds to wait for a neighbour.
        snapshots: writes the state when a batch is marked for a snapshot.
        faults: to be injected.
        activity: kept up to date for the heartbeat.
        codec: of activations, which also applies between two stages of this process.
        trace: records what is done when.
    """

    stages: Sequence[Stage]
    receiver: Receiver
    sender: Sender | None
    control: ReportChannel | None
    timeout: float
    snapshots: Snapshots
    faults: Faults
    activity: Activity
    codec: str = "none"
    trace: Tracer = NO_TRACE
    stopped_early: bool = False
    """Whether the run was asked to stop before its end."""
    _times: dict[int, StageTimes] = field(default_factory=dict)
    _memory: ProcessMemory = field(init=False)
    _compute_seconds: float = 0.0
    _done_before: set[tuple[int, bool]] = field(default_factory=set)
    """Kinds of step done in this process: stage, and whether it was updated."""
    _sent: int = 0

    def run(self) -> None:
        """Train until the batch that is marked as the last.

        Raises:
            LinkTimeout, LinkClosed, LinkMismatch: a neighbour has ended or does not respond.
        """
        self._times = {stage.index: StageTimes() for stage in self.stages}
        self._memory = ProcessMemory(self.stages[0].compute.device)
        last = False
        while not last:
            started = time.monotonic()
            message = self._receive()
            header = message.header
            self.activity.step, last, self.stopped_early = header.step, header.last, header.leave
            self._received(time.monotonic() - started)
            self.trace.at(header.step)
            self.trace.took(stage_name(self.stages[0].index), "receive", started)
            reached = [stage for stage in self.stages if header.reaches(stage.index)]
            activations = message.tensor
            for stage in reached:
                activations = self._forward(stage, activations, header)
            self._send(header, activations, reached[-1].index)
            for stage in reached:
                self._learn(stage, header)
            self.activity.since = None

    def _forward(self, stage: Stage, activations: torch.Tensor, header: Header) -> torch.Tensor:
        started = self._begin(stage, header)
        if stage is not self.stages[0]:
            activations = round_trip(self.codec, activations)
        forward = stage if header.learner in (None, stage.index) else stage.relay
        onward: torch.Tensor = forward(activations, header.step, header.noise_levels[stage.index - 1])
        self._times[stage.index].busy += time.monotonic() - started
        return onward

    def _send(self, header: Header, activations: torch.Tensor, index: int) -> None:
        if self.sender is None or not header.reaches(index + 1):
            return
        self.activity.since, started = None, time.monotonic()
        # A batch beyond the depth of the link waits for the first step of the next stage, which may take long.
        patience = START_SECONDS * (self._sent <= self.sender.address.depth + 1)
        self.sender.send(header, activations, self.timeout + patience)
        self._sent += 1
        self._times[index].wait_output += time.monotonic() - started
        self.trace.took(stage_name(index), "send", started)

    def _learn(self, stage: Stage, header: Header) -> None:
        started = self._begin(stage, header)
        self.faults.before_update(stage.index, header.step)
        learns = header.learner in (None, stage.index)
        labels = self._labels(header, stage)
        result = stage.update(header.step, labels) if learns else StageReport()
        online = None
        if stage.online is not None:
            with self.trace.span(stage_name(stage.index), "probe"):
                online = stage.online.measure(header.step, labels)
        if header.snapshot:
            with self.trace.span(stage_name(stage.index), "snapshot"):
                self.snapshots.take(stage, header.step + 1)
        times = self._times[stage.index]
        times.busy += time.monotonic() - started
        first, final = stage is self.stages[0], stage is self.stages[-1]
        waiting = self.receiver.waiting() if first else 0
        self.trace.count(stage_name(stage.index), "queue", waiting)
        link_bytes = self.sender.bytes_sent if final and self.sender is not None else 0
        memory = self._memory.measure()
        report = times.report(stage.index, header.step, result, waiting, link_bytes, online, memory)
        if self.control is not None:
            self.control.send(report.to_message())
        self._done_before.add((stage.index, learns))

    def _begin(self, stage: Stage, header: Header) -> float:
        now = time.monotonic()
        self.activity.first = (stage.index, header.learner in (None, stage.index)) not in self._done_before
        self.activity.stage, self.activity.since = stage.index, now
        return now

    def _receive(self) -> Message:
        """The next batch. In mode sequential, a stage waits for its first one as long as its neighbour lives.

        The first batch arrives after the first step of all previous stages, which may take long.
        """
        first = self.stages[0]
        while True:
            try:
                return self.receiver.recv(self.timeout + START_SECONDS * (self.activity.step is None))
            except LinkTimeout:
                if self.activity.step is not None or first.phases.count == 1 or first.index == 1:
                    raise

    def _received(self, seconds: float) -> None:
        """Count the time of a receive: augmentation on this device as busy, the rest as waiting."""
        times, worked = self._times[self.stages[0].index], self.receiver.compute_seconds - self._compute_seconds
        self._compute_seconds = self.receiver.compute_seconds
        times.busy += worked
        times.wait_input += max(seconds - worked, 0.0)

    def _labels(self, header: Header, stage: Stage) -> torch.Tensor | None:
        labels = header.label_tensor
        return None if labels is None else labels.to(stage.compute.device)
