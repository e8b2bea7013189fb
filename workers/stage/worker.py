"""The training loop of one process: receive, forward, send, update, report.

Activations are sent before the local update, so the next stage computes while this one updates. R receives, F is the
forward pass, S sends, U is loss, backward and optimizer step; the number is the step:

    stage 1   R0 F0 S0 U0 | R1 F1 S1 U1 | R2 F2 S2 U2          time ->
    stage 2            R0 F0 S0 U0 | R1 F1 S1 U1 | ...
    stage 3                     R0 F0 U0 | ...                 (the last stage sends nothing)

F of step t uses the parameters after U of step t - 1, whatever the other stages do at that time: so a pipelined run
equals a serial one. No gradient is sent back: links carry batches in one direction only.

The time of a step is divided without a rest, by the clock of the device (`device_clock`): waiting for input and copying
in R, computing in F and U, waiting for room and copying in S. A step waits for its device only where it reads its loss,
before the optimizer; so on a GPU the time of U is in the report of the next step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch

from pipeline.data.to_device import sent_to
from pipeline.stage.codecs import round_trip
from pipeline.stage.stage import Stage
from workers.control.shares import Share
from workers.control.step_report import StageTimes
from workers.links.base import LinkTimeout, Part, Receiver, Sender
from workers.links.messages import Header, Message
from workers.observing.memory import ProcessMemory
from workers.observing.trace import NO_TRACE, Tracer
from workers.run.faults import Faults
from workers.stage.device_clock import DeviceClock, Mark
from workers.stage.flops import StepFlops, peak_flops
from workers.stage.plain_steps import PlainSteps
from workers.stage.throttling import ThrottleWatch
from workers.topology.processes import stage_name
from workers.topology.rendezvous import START_SECONDS

SLICES: dict[Share, str] = {
    "busy": "computing", "wait_input": "wait for input", "wait_output": "wait for room", "copying": "copy",
}  # fmt: skip
"""Names of the shares of time in a trace."""


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
    """When it last started to compute, by `time.monotonic`; None before it has, and when it is over."""
    launched: Mark | None = None
    """While it waits for a neighbour: the end of what its device was given to do. None while it computes itself."""
    first: bool = True
    """Whether this kind of step, with or without an update of the stage, is the first in this process."""

    def computing_since(self) -> float | None:
        """When it started what it, or its device, still computes; None while both wait. From any thread."""
        if (launched := self.launched) is not None and launched.reached():
            return None
        return self.since


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
        clock: measures the shares of its time; that of the stages' device if there is none.
        throttle: watches their GPU.
        plain: counts the operations of compiled stages; without it they are not counted.
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
    clock: DeviceClock | None = None
    throttle: ThrottleWatch | None = None
    plain: PlainSteps | None = None
    stopped_early: bool = False
    """Whether the run was asked to stop before its end."""
    _times: dict[int, StageTimes] = field(default_factory=dict)
    _memory: ProcessMemory = field(init=False)
    _clock: DeviceClock = field(init=False)
    _flops: StepFlops = field(default_factory=StepFlops)
    _peaks: dict[int, float | None] = field(default_factory=dict)
    _inputs: dict[int, tuple[torch.Size, torch.dtype]] = field(default_factory=dict)
    """Shape and dtype of what every stage got last."""
    _done_before: set[tuple[int, bool]] = field(default_factory=set)
    """Kinds of step done in this process: stage, and whether it was updated."""
    _sent: int = 0
    _step: int | None = None
    """The step of what is measured; None before the first batch."""

    def run(self) -> None:
        """Train until the batch that is marked as the last.

        Raises:
            LinkTimeout, LinkClosed, LinkMismatch: a neighbour has ended or does not respond.
        """
        self._times = {stage.index: StageTimes() for stage in self.stages}
        self._peaks = {stage.index: peak_flops(stage.compute) for stage in self.stages}
        device, first = self.stages[0].compute.device, self.stages[0].index
        self._memory, self._clock = ProcessMemory(device), self.clock or DeviceClock.of(device)
        self.receiver.measure(partial(self._part_of_link, first, "wait_input"))
        if self.sender is not None:
            self.sender.measure(partial(self._part_of_link, self.stages[-1].index, "wait_output"))
        for stage in self.stages:
            stage.exposed = partial(self.faults.exposed, stage.index)
        mark, last = self._clock.start(), False
        while not last:
            message = self._receive()
            self._clock.lap(self._times[first], "wait_input")  # what the link has not measured itself
            header = message.header
            self.activity.step, last, self.stopped_early = header.step, header.last, header.leave
            self._step = header.step
            self.trace.at(header.step)
            self.trace.took(stage_name(first), "receive", mark.issued)
            reached = [stage for stage in self.stages if header.reaches(stage.index)]
            activations = message.tensor
            for stage in reached:
                activations = self._forward(stage, activations, header)
            self._send(header, activations, reached[-1].index)
            for stage in reached:
                mark = self._learn(stage, header)
            self._step = header.step + 1

    def _forward(self, stage: Stage, activations: torch.Tensor, header: Header) -> torch.Tensor:
        self._begin(stage, header)
        if stage is not self.stages[0]:
            activations = round_trip(self.codec, activations)
        learns = stage.learns(header.learner)
        forward, self._inputs[stage.index] = stage if learns else stage.relay, (activations.shape, activations.dtype)
        with self._flops.counted(stage, self._times[stage.index], "forward", learns, activations.shape):
            onward: torch.Tensor = forward(activations, header.step, header.noise_levels[stage.index - 1])
        self._lap(stage.index, "busy")
        return onward

    def _send(self, header: Header, activations: torch.Tensor, index: int) -> None:
        if self.sender is None or not header.reaches(index + 1):
            return
        self.activity.launched = forward = self._clock.lap(self._times[index], "busy")
        # A batch beyond the depth of the link waits for the first step of the next stage, which may take long.
        patience = START_SECONDS * (self._sent <= self.sender.address.depth + 1)
        self.sender.send(header, activations, self.timeout + patience)
        self._sent += 1
        self._clock.lap(self._times[index], "wait_output")
        self.trace.took(stage_name(index), "send", forward.issued)

    def _learn(self, stage: Stage, header: Header) -> Mark:
        self._begin(stage, header)
        self.faults.before_update(stage.index, header.step)
        learns = stage.learns(header.learner)
        labels = self._labels(header, stage)
        if learns:
            with self._flops.counted(stage, self._times[stage.index], "update", self._inputs[stage.index]):
                result = stage.update(header.step, labels)
        else:
            result = stage.relayed(header.step)
        if self.plain is not None:
            count = partial(self.plain.of_stage, stage.index, *self._inputs[stage.index], header.step, learns=learns)
            self._flops.add_compiled(stage, self._times[stage.index], count, learns, self._inputs[stage.index])
        online = None
        if stage.online is not None:
            with self.trace.span(stage_name(stage.index), "probe"):
                online = stage.online.measure(header.step, labels)
        if header.snapshot:
            with self.trace.span(stage_name(stage.index), "snapshot"):
                self.snapshots.take(stage, header.step + 1)
        self._lap(stage.index, "busy")
        first, final = stage is self.stages[0], stage is self.stages[-1]
        waiting = self.receiver.waiting() if first else 0
        self.trace.count(stage_name(stage.index), "queue", waiting)
        link_bytes = self.sender.bytes_sent if final and self.sender is not None else 0
        memory = self._memory.measure()
        throttled = self.throttle.reasons if first and self.throttle is not None else None
        peak = self._peaks[stage.index]
        report = self._times[stage.index].report(
            stage.index, header.step, result, waiting, link_bytes, online, memory, peak, throttled
        )
        if self.control is not None:
            self.control.send(report.to_message())
        self._done_before.add((stage.index, learns))
        self.activity.launched = end = self._lap(stage.index, "busy")  # the report itself, which the next one has
        return end

    def _begin(self, stage: Stage, header: Header) -> None:
        self.activity.first = (stage.index, stage.learns(header.learner)) not in self._done_before
        self.activity.stage, self.activity.since = stage.index, time.monotonic()
        self.activity.launched = None  # last, as another thread reads it first

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

    def _part_of_link(self, stage: int, waiting: Share, part: Part) -> None:
        """A part of a call of a link has ended, which `stage` made."""
        shares: dict[Part, Share] = {"waiting": waiting, "copying": "copying", "computing": "busy"}
        self._lap(stage, shares[part])

    def _lap(self, stage: int, share: Share) -> Mark:
        """What `stage` did since the lap before ends here; returns the place in the work of the device.

        The first step of a compiled stage is in no sum: it is the compiler's, may take minutes, and says nothing of
        those that follow.
        """
        compiled = self.activity.first and any(one.index == stage and one.compute.config.compile for one in self.stages)
        compiles = compiled and share == "busy"
        return self._clock.lap(None if compiles else self._times[stage], share, self._booking(stage, share))

    def _booking(self, stage: int, share: Share) -> Callable[[float, float], None] | None:
        """Puts a lap into the trace; the parts of what a CPU computes are in it by themselves."""
        if self.trace is NO_TRACE or (share == "busy" and not self._clock.lags):
            return None
        track = f"{stage_name(stage)} device" if self._clock.lags else stage_name(stage)
        return partial(self.trace.lasted, track, SLICES[share], self._step)

    def _labels(self, header: Header, stage: Stage) -> torch.Tensor | None:
        labels = header.label_tensor
        return None if labels is None else sent_to(labels, stage.compute.device)
