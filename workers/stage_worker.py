"""The loop of one stage process: receive, forward, send onward, learn, report.

Activations leave before the local update, so the next stage starts while this one learns. Nothing
comes back: the links carry batches one way only, and the next stage's loss never reaches this block.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from pipeline.stage import Stage, StageReport
from workers.links.base import LinkTimeout, Receiver, Sender
from workers.messages import Header, Message
from workers.reports import StageTimes


class ReportChannel(Protocol):
    """What a stage needs of the control channel."""

    def send(self, message: dict[str, Any]) -> None:
        """Send one message to the coordinator."""
        ...


class Snapshots(Protocol):
    """What a stage needs of the writer of snapshots."""

    def take(self, stage: Stage, steps: int) -> None:
        """Copy the state after so many steps."""
        ...


@dataclass
class StageWorker:
    """Drives one `Stage` between its links.

    Args:
        stage: what computes.
        receiver: from the stage before (or the coordinator).
        sender: to the stage after; None for the last stage.
        control: where reports go.
        timeout: seconds to wait for a neighbour.
        snapshots: where the state goes when a batch is marked for it.
    """

    stage: Stage
    receiver: Receiver
    sender: Sender | None
    control: ReportChannel
    timeout: float
    snapshots: Snapshots
    step: int | None = None
    """The step being worked on; for the report of a failure."""

    def run(self) -> None:
        """Work until the batch that is marked as the last.

        Raises:
            LinkTimeout, LinkClosed, LinkMismatch: a neighbour is gone or silent.
        """
        times = StageTimes()
        last = False
        while not last:
            started = time.monotonic()
            message = self._receive()
            header = message.header
            self.step, last = header.step, header.last
            received = time.monotonic()
            learns = header.learner in (None, self.stage.index)
            level = header.noise_levels[self.stage.index - 1]
            forward = self.stage if learns else self.stage.relay
            activations = forward(message.tensor, header.step, level)
            forwarded = time.monotonic()
            if self.sender is not None and header.reaches(self.stage.index + 1):
                self.sender.send(header, activations, self.timeout)
            sent = time.monotonic()
            result = self.stage.update(header.step, self._labels(header)) if learns else StageReport()
            if header.snapshot:
                self.snapshots.take(self.stage, header.step + 1)
            times.wait_input += received - started
            times.wait_output += sent - forwarded
            times.busy += (forwarded - received) + (time.monotonic() - sent)
            link_bytes = self.sender.bytes_sent if self.sender is not None else 0
            report = times.report(self.stage.index, header.step, result, self.receiver.waiting(), link_bytes)
            self.control.send(report.to_message())

    def _receive(self) -> Message:
        """The next batch. A stage whose turn has not come (mode sequential) waits as long as its neighbour lives."""
        while True:
            try:
                return self.receiver.recv(self.timeout)
            except LinkTimeout:
                if self.step is not None or self.stage.phases.count == 1 or self.stage.index == 1:
                    raise

    def _labels(self, header: Header) -> torch.Tensor | None:
        labels = header.label_tensor
        return None if labels is None else labels.to(self.stage.compute.device)
