"""The life cycle of one training process: connect, build the stages, open the links, train, save, exit."""

from __future__ import annotations

import logging
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from typing import Literal

import torch
from pydantic import TypeAdapter

from pipeline.config import Config
from pipeline.errors import TrainingError
from pipeline.measures.online import online_measures
from pipeline.replicas import ReplicaGroup
from pipeline.stage.stage import Stage
from workers.control.channel import ControlClient, ControlTimeout
from workers.control.failures import FailureReport, Interrupted, failure_report, raise_interrupted
from workers.control.transfer import TransferClient
from workers.determinism.check import check_steps
from workers.determinism.refusal import in_words
from workers.feed.first_stage import MeasuredReports
from workers.links.listening import closed_afterwards
from workers.links.rpc_agent import stop_agent
from workers.observing.trace import trace_of_member
from workers.run.compute import set_up_compute
from workers.run.faults import Faults
from workers.run.files import RunDir
from workers.run.no_kernel import note_operations
from workers.run.signals import stop_signals
from workers.run.stacks import write_stacks, write_stacks_on_signal
from workers.snapshots.parts import LocalParts, Parts
from workers.snapshots.remote_parts import RemoteParts
from workers.snapshots.restore import restore
from workers.snapshots.weights import save_stage
from workers.snapshots.writer import SnapshotWriter
from workers.stage.heartbeat import ControlListener
from workers.stage.plain_steps import PlainSteps
from workers.stage.throttling import watch_throttling
from workers.stage.worker import Activity, StageWorker
from workers.topology.processes import TrainingProcess, stage_name
from workers.topology.rendezvous import START_SECONDS, Rendezvous
from workers.topology.replica_group import join_replica_group
from workers.wiring import Wiring

STOP_SECONDS = 30.0
LINGER_SECONDS = 7 * 24 * 3600.0
"""Limit for a finished process to wait for the end of the run, which the control channel reports."""
_HOST_AND_PORT = TypeAdapter(tuple[str, int])
_log = logging.getLogger(__name__)

Outcome = Literal["done", "left", "failed"]
"""How a training process ended: with the run, after a snapshot because it was asked to stop, or before its time."""


def run_training_process(
    config: Config,
    run: RunDir,
    rendezvous: Rendezvous,
    process: TrainingProcess,
    device: torch.device,
    failed: Callable[[FailureReport], object] = lambda failure: None,
    waiting: Callable[[], object] | None = None,
) -> Outcome:
    """Train the stages of `process` to the end of the run; how that ended.

    A failure is reported to the coordinator in one sentence, and written to the log of this process with its traceback.

    Args:
        config, run: of the run.
        rendezvous: addresses and key of the run.
        process: which one this is.
        device: to train on.
        failed: called with what ended the run, as the coordinator says, or else this process.
        waiting: called again and again until the coordinator is reached; may raise.
    """
    set_up_compute(config)
    write_stacks_on_signal()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, raise_interrupted)
    _log.info("%s: process %d on %s, %d CPU threads", process.name, os.getpid(), device, config.threads)
    with ExitStack() as stack:
        try:
            control = ControlClient.connect(rendezvous.control, rendezvous.key, process.name, START_SECONDS, waiting)
            stack.callback(control.close)
            control.end_after_silence(config.hang_timeout)
            start = control.poll(START_SECONDS)
        except (TrainingError, Interrupted):
            _log.exception("%s could not reach the coordinator", process.name)
            return "failed"
        session = _TrainingSession(
            config=config, run=run, rendezvous=rendezvous, process=process, device=device, control=control, stack=stack
        )
        try:
            if start is None or start.get("type") != "start":
                raise ControlTimeout(f"{process.name}: the coordinator did not say where to start")
            keys = ("step", "total_steps", "steps_per_epoch", "attempt", "classes")
            session.open_parts(start.get("parts"))
            return session.train(*(int(start[key]) for key in keys))
        except BaseException as error:
            session.activity.since = None
            _log.error("%s", traceback.format_exc())
            who = stage_name(session.activity.stage) if process.replicas == 1 else process.name
            error = in_words(error, config, session.activity.stage, session.activity.step, device)
            failure = failure_report(who, session.activity.step, error, str(device))
            with suppress(Exception):
                control.send({**failure.to_message(), "process": process.name})
            failed(session.root_cause or failure)
            if config.link.kind == "rpc":
                stop_agent(graceful=False, timeout=2.0)
            return "failed"


class _TrainingSession:
    """One training process from its connection to its end, and the resources that it holds."""

    def __init__(
        self,
        *,
        config: Config,
        run: RunDir,
        rendezvous: Rendezvous,
        process: TrainingProcess,
        device: torch.device,
        control: ControlClient,
        stack: ExitStack,
    ) -> None:
        self.config, self.run, self.rendezvous, self.process = config, run, rendezvous, process
        self.device, self.control, self.stack = device, control, stack
        self.activity = Activity(process.stages[0])
        self.wiring = Wiring(config, rendezvous, run, self._note)
        self._parts: Parts = LocalParts(run)
        self._listener: ControlListener | None = None

    @property
    def root_cause(self) -> FailureReport | None:
        """Why the coordinator ended the run, if it has said so."""
        return self._listener.root_cause if self._listener is not None else None

    def open_parts(self, address: object) -> None:
        """Keep parts of snapshots and of `final/` with the coordinator, if this process does not see its directory.

        Args:
            address: host and port, as the coordinator has sent them; None if it expects none.
        """
        if not self.rendezvous.apart:
            return
        host, port = _HOST_AND_PORT.validate_python(address)
        client = TransferClient((host, port), self.rendezvous.key, self.process.name)
        self.stack.callback(client.close)
        self._parts = RemoteParts(client, self.run.path)

    def train(self, start_step: int, total_steps: int, steps_per_epoch: int, attempt: int, classes: int) -> Outcome:
        """Train from the first batch to the last, save, and wait for the end of the run."""
        config, process = self.config, self.process
        interval = min(1.0, config.hang_timeout / 4)
        with ControlListener(
            self.control,
            self.activity,
            stop_signals(config),
            interval,
            self.wiring.committed,
            stacks=partial(write_stacks, self.run, process.log_name),
        ) as self._listener:
            listener = self._listener
            worker = self._prepare(start_step, steps_per_epoch, attempt, classes)
            try:
                if start_step < total_steps:  # resumed from a snapshot after the last step: no batch follows
                    worker.run()
            finally:
                self.activity.since = None
            worker.snapshots.close()
            worker.trace.close()  # complete before the coordinator learns of the end
            outcome: Outcome = "left" if worker.stopped_early else "done"
            if outcome == "done":
                for stage in worker.stages:
                    save_stage(self.run, stage, writes=process.reports, parts=self._parts)
            self.control.send({"type": outcome})
            listener.wait_for_end(self.wiring.serve, LINGER_SECONDS)
            self._leave(worker)
        return outcome

    def _prepare(self, start_step: int, steps_per_epoch: int, attempt: int, classes: int) -> StageWorker:
        """Build the stages, open the link from the previous stage, then the one to the next."""
        config, process, control = self.config, self.process, self.control
        if config.determinism.level == "warn" and process.reports:
            note_operations(self._note)
        if attempt == 0:
            check_steps(config, self.run, process.stages, self.device, self._note)
        trace = trace_of_member(config.trace, self.run, process)
        self.stack.callback(trace.close)
        team = self._replica_group(attempt)
        with closed_afterwards() if self.device.type == "cpu" else nullcontext():  # DeepSpeed creates further groups
            stages = [Stage(config, index, steps_per_epoch, self.device, team=team) for index in process.stages]
        for stage in stages:
            stage.online = online_measures(config, stage.index, classes, steps_per_epoch, stage.compute, team)
            trace.watch(stage)
        restore(self.run, start_step, stages, self._parts)
        faults = Faults(config.faults, self.run, process.stages, process.replica)
        writer = SnapshotWriter(
            self.run,
            lambda taken: control.send(taken.to_message()),
            faults,
            writes=process.reports,
            parts=self._parts,
        )
        self.stack.callback(writer.abandon)
        self.wiring.join_rpc_group(process.name, process.rank)
        receiver = self.wiring.receiver(process, start_step, self.device, partial(faults.exposed, process.stages[0]))
        self.stack.callback(receiver.close)
        sender = self.wiring.sender(process, self.device)
        if sender is not None:
            self.stack.callback(sender.close)
        if self.wiring.feed is not None:
            self.wiring.feed.trace = trace
        channel = control if self.wiring.feed is None else MeasuredReports(control, self.wiring.feed)
        reports = channel if process.reports else None
        throttle = watch_throttling(self.device) if process.reports else None
        if throttle is not None:
            self.stack.callback(throttle.close)
        limit, codec = config.link.timeout, config.link.codec
        return StageWorker(
            stages=stages,
            receiver=receiver,
            sender=sender,
            control=reports,
            timeout=limit,
            snapshots=writer,
            faults=faults,
            activity=self.activity,
            codec=codec,
            trace=trace,
            throttle=throttle,
            plain=PlainSteps(config, steps_per_epoch),
        )

    def _note(self, text: str) -> None:
        """Tell the user; in the log too, as the channel may be gone."""
        _log.warning("%s", text)
        with suppress(TrainingError):
            self.control.send({"type": "note", "text": text})

    def _replica_group(self, attempt: int) -> ReplicaGroup:
        process = self.process
        name = f"unit{process.stage_group}.{attempt}"
        alone = any(self.config.stage(index).engine.kind == "deepspeed" for index in process.stages)
        return join_replica_group(
            self.rendezvous.store,
            name,
            process.replica - 1,
            process.replicas,
            self.device,
            START_SECONDS,
            always_group=alone,
        )

    def _leave(self, worker: StageWorker) -> None:
        worker.receiver.close()
        if worker.sender is not None:
            worker.sender.close()
        if self.config.link.kind == "rpc":
            stop_agent(graceful=True, timeout=STOP_SECONDS)
