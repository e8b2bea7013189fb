"""The coordinator: numbers the steps, sends batches to stage 1, collects the stages' reports, and ends the run.

It trains nothing and has no weights. One thread (`batch_sender`) sends batches into the first link, which blocks it
when full; the main thread (`monitor`) reads the control channel. A failure seen by either ends the run with one root
cause, or restarts the stage that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress

import torch

from pipeline.config import Config
from pipeline.errors import TrainingError
from workers.control.channel import ControlServer
from workers.control.failures import FailureReport, RunFailed, failure_report
from workers.control.transfer_server import TransferServer
from workers.coordinator.batch_sender import BatchSender
from workers.coordinator.finish import finish_run
from workers.coordinator.monitor import RunMonitor
from workers.coordinator.observers import Observation
from workers.coordinator.recorder import Recorder
from workers.coordinator.silent_hosts import on_host
from workers.coordinator.supervisor import Supervisor
from workers.feed import Feed
from workers.feed.first_stage import NumbersFeed, open_feed
from workers.links.base import Sender
from workers.links.rpc_agent import stop_agent
from workers.observing.terminal.console import Console
from workers.observing.trace import Tracer, trace_of_coordinator
from workers.run.files import RunDir
from workers.run.notice import notice_after
from workers.snapshots.committer import SnapshotCommitter
from workers.snapshots.remote_parts import PartStore
from workers.topology.processes import COORDINATOR, training_processes
from workers.topology.rendezvous import Rendezvous
from workers.wiring import Wiring

STOP_SECONDS = 30.0


class Coordinator:
    """One run, from the first connection to the report.

    Args:
        config: of the run.
        run: its directory.
        rendezvous: addresses and key of the run.
        device: for the final evaluation.
        terminal: for messages to the user.
        supervisor: the process that started the training processes.
        start_step: first step to train; more than 0 resumes from the snapshot after so many steps.
        failed: see `Observation`.
        hosts: name of the host of every training process, where there are several.
    """

    def __init__(
        self,
        config: Config,
        run: RunDir,
        *,
        rendezvous: Rendezvous,
        device: torch.device,
        terminal: Console,
        supervisor: Supervisor,
        start_step: int = 0,
        failed: Callable[[BaseException], object] = lambda error: None,
        hosts: dict[str, str] | None = None,
    ) -> None:
        self.config, self.run_files, self.rendezvous = config, run, rendezvous
        self.device, self.terminal, self.supervisor = device, terminal, supervisor
        self.start_step, self.hosts = start_step, hosts or {}
        self.observation = Observation(config, run, terminal, start_step, failed)
        self.monitor: RunMonitor | None = None
        """None until the control channel is open."""
        self._wiring = Wiring(config, rendezvous, run)

    def run(self) -> None:
        """Raises `RunFailed`, or another `OnwardError` if the run could not start."""
        with self.observation:
            recorder, stopped = self._train()
            if self.config.link.kind == "rpc":
                stop_agent(graceful=True, timeout=STOP_SECONDS)
            self._wiring.close()
            if stopped is not None:
                raise RunFailed(stopped)
            finish_run(self.config, self.run_files, recorder, self.device, self.terminal)

    def _train(self) -> tuple[Recorder, FailureReport | None]:
        """From the first connection until all stages are done; returns a failure if the run was stopped early."""
        with (
            closing(trace_of_coordinator(self.config.trace, self.run_files)) as trace,
            ControlServer(self.rendezvous.control, self.rendezvous.key) as control,
            self._failure_reported(control),
            self._transfers() as transfers,
            open_feed(self.config, self.start_step, trace) as feed,
        ):
            self.supervisor.announce(control.address)
            self.observation.begin(feed.total_steps, feed.steps_per_epoch)
            with self.observation.recorder(feed.total_steps) as recorder:
                self.monitor, batch_sender = self._open(control, feed, recorder, trace)
                self.monitor.parts = None if transfers is None else transfers.address
                with self._notice_of_missing(control):
                    self.monitor.connect_all()
                for sentence in self._wiring.in_words():
                    self.terminal.detail(sentence)
                batch_sender.start(recorder)
                self.monitor.watch()
                batch_sender.finished.set()
                control.broadcast({"type": "finish"})
                if self.config.link.kind == "rpc":  # an agent stops only when stage 1 no longer watches this end
                    batch_sender.close()
        return recorder, self.monitor.interrupted() if batch_sender.stopped_at is not None else None

    def _transfers(self) -> AbstractContextManager[TransferServer | None]:
        """For processes that do not see the run directory."""
        if not self.rendezvous.apart:
            return nullcontext()
        return TransferServer(self.rendezvous.control, self.rendezvous.key, PartStore(self.run_files))

    @contextmanager
    def _failure_reported(self, control: ControlServer) -> Iterator[None]:
        """Tell all processes why the run ends, if it fails; some may not see `failure.json`."""
        try:
            yield
        except Exception as error:
            failure = error.failure if isinstance(error, RunFailed) else failure_report(COORDINATOR, None, error)
            with suppress(TrainingError):  # too long to be sent
                control.broadcast(failure.to_message())
            raise

    def _notice_of_missing(self, control: ControlServer) -> AbstractContextManager[None]:
        """On several hosts, say after a while which processes have not connected."""

        def report_missing() -> None:
            missing = [each.name for each in training_processes(self.config) if each.name not in control.connected()]
            if self.rendezvous.host and missing:
                named = ", ".join(on_host(name, self.hosts) for name in missing)
                self.terminal.say(f"waiting for {named} to connect to the coordinator")

        return notice_after(report_missing)

    def _open(
        self, control: ControlServer, feed: Feed | NumbersFeed, recorder: Recorder, trace: Tracer
    ) -> tuple[RunMonitor, BatchSender]:
        """Create the monitor and the batch sender, which refer to each other."""

        def committed(steps: int) -> None:
            control.broadcast({"type": "committed", "steps": steps})
            self._wiring.committed(steps)
            self.observation.committed(steps)

        say = self.observation.note
        committer = SnapshotCommitter(self.config.snapshots, self.run_files, say, self.start_step, committed)
        batch_sender = BatchSender(
            config=self.config,
            feed=feed,
            open_sender=self._open_first_link,
            links=self._wiring,
            snapshots=committer,
            trace=trace,
        )
        monitor = RunMonitor(
            config=self.config,
            control=control,
            supervisor=self.supervisor,
            snapshots=committer,
            recorder=recorder,
            batch_sender=batch_sender,
            total_steps=feed.total_steps,
            steps_per_epoch=feed.steps_per_epoch,
            classes=feed.num_classes,
            start_step=self.start_step,
            observation=self.observation,
            hosts=self.hosts,
        )
        batch_sender.failed = monitor.sender_failed
        return monitor, batch_sender

    def _open_first_link(self) -> Sender:
        self._wiring.join_rpc_group(COORDINATOR, len(training_processes(self.config)))
        return self._wiring.first_sender()
