"""The coordinator: numbers the steps, feeds stage 1, follows what the stages report, ends the run.

It trains nothing and holds no weights. One thread (`sending`) pushes batches into the first link and is held
back by it; the main thread (`monitor`) reads the control channel. The first sign of trouble, from whichever
side, ends the run with one cause, or brings the stage back that it befell.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import torch

from pipeline.config import Config
from workers.control.channel import ControlServer
from workers.control.failures import FailureReport, RunFailed
from workers.coordinator.batch_sender import BatchSender
from workers.coordinator.finish import finish_run
from workers.coordinator.monitor import RunMonitor, Supervisor
from workers.coordinator.observers import Observation
from workers.coordinator.recorder import Recorder
from workers.feed import Feed
from workers.feed.first_stage import NumbersFeed, open_feed
from workers.links.base import Sender
from workers.links.rpc_agent import start_agent, stop_agent
from workers.observing.terminal.console import Console
from workers.observing.trace import Tracer, trace_of_coordinator
from workers.run.files import RunDir
from workers.snapshots.committer import SnapshotCommitter
from workers.topology.members import COORDINATOR, members
from workers.topology.rendezvous import START_SECONDS, Rendezvous
from workers.wiring import Wiring

STOP_SECONDS = 30.0


class Coordinator:
    """One run, from the first connection to the report.

    Args:
        config: the run.
        run: where it writes.
        meeting: where its processes meet.
        device: what the final evaluation runs on.
        terminal: what the user sees.
        supervisor: who started the processes.
        start_step: the first step to train; more than 0 goes on from the snapshot after so many steps.
        failed: see `Observation`.
    """

    def __init__(
        self,
        config: Config,
        run: RunDir,
        meeting: Rendezvous,
        device: torch.device,
        terminal: Console,
        supervisor: Supervisor,
        start_step: int = 0,
        failed: Callable[[BaseException], object] = lambda error: None,
    ) -> None:
        self.config, self.run_files, self.meeting = config, run, meeting
        self.device, self.terminal, self.supervisor = device, terminal, supervisor
        self.start_step = start_step
        self.observation = Observation(config, run, terminal, start_step, failed)
        self.monitor: RunMonitor | None = None
        """None until the control channel is open."""
        self._wiring = Wiring(config, meeting, run)

    def run(self) -> None:
        """Raises `RunFailed`, or another `OnwardError` if the run could not start."""
        with self.observation:
            recorder, left = self._train()
            if self.config.link.kind == "rpc":
                stop_agent(graceful=True, timeout=STOP_SECONDS)
            self._wiring.close()
            if left is not None:
                raise RunFailed(left)
            finish_run(self.config, self.run_files, recorder, self.device, self.terminal)

    def _train(self) -> tuple[Recorder, FailureReport | None]:
        """From the first connection to the last word of the last stage; whether the run was asked to end before."""
        with (
            closing(trace_of_coordinator(self.config.trace, self.run_files)) as trace,
            ControlServer(self.meeting.control, self.meeting.key) as control,
            open_feed(self.config, self.start_step, trace) as feed,
        ):
            self.supervisor.announce(control.address)
            self.observation.begin(feed.total_steps, feed.steps_per_epoch)
            with self.observation.recorder(feed.total_steps) as recorder:
                self.monitor, sending = self._take_up(control, feed, recorder, trace)
                self.monitor.gather()
                for sentence in self._wiring.in_words():
                    self.terminal.detail(sentence)
                sending.start(recorder)
                self.monitor.follow()
                sending.over.set()
                control.broadcast({"type": "finish"})
                if self.config.link.kind == "rpc":  # or no agent could stop in order: stage 1 watches this end
                    sending.close()
        return recorder, self.monitor.interrupted() if sending.left is not None else None

    def _take_up(
        self, control: ControlServer, feed: Feed | NumbersFeed, recorder: Recorder, trace: Tracer
    ) -> tuple[RunMonitor, BatchSender]:
        """Who feeds the run and who follows it; they know of each other."""

        def committed(steps: int) -> None:
            control.broadcast({"type": "committed", "steps": steps})
            self._wiring.committed(steps)
            self.observation.committed(steps)

        say = self.observation.note
        keeper = SnapshotCommitter(self.config.snapshots, self.run_files, say, self.start_step, committed)
        sending = BatchSender(self.config, feed, self._open_first_link, self._wiring, keeper, trace=trace)
        monitor = RunMonitor(
            self.config,
            control,
            self.supervisor,
            keeper,
            recorder,
            sending,
            feed.total_steps,
            feed.steps_per_epoch,
            feed.num_classes,
            self.start_step,
            self.observation,
        )
        sending.failed = monitor.sending_failed
        return monitor, sending

    def _open_first_link(self) -> Sender:
        if self.config.link.kind == "rpc":
            ranks = len(members(self.config)) + 1
            start_agent(COORDINATOR, ranks - 1, ranks, self.meeting.rpc_init, START_SECONDS)
        return self._wiring.first_sender()
