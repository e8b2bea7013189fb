"""The life of one training process: connect, build its stages, open the links, work, save, leave."""

from __future__ import annotations

import logging
import os
import signal
import traceback
from contextlib import ExitStack, nullcontext, suppress

import torch

from pipeline.config import Config
from pipeline.errors import TrainingError
from pipeline.measures.online import online_measures
from pipeline.replicas import ReplicaGroup
from pipeline.stage.stage import Stage
from workers.control.channel import ControlClient, ControlTimeout
from workers.control.failures import Interrupted, failure_report, raise_interrupted
from workers.determinism.check import check_steps
from workers.feed.first_stage import MeasuredReports
from workers.links.listening import closed_afterwards
from workers.links.rpc_agent import start_agent, stop_agent
from workers.observing.trace import trace_of_member
from workers.run.compute import set_up_compute
from workers.run.faults import Faults
from workers.run.files import RunDir
from workers.run.signals import leave_signals
from workers.snapshots.restore import restore
from workers.snapshots.weights import save_stage
from workers.snapshots.writer import SnapshotWriter
from workers.stage.heartbeat import ControlListener
from workers.stage.worker import Activity, StageWorker
from workers.topology.members import TrainingProcess, members, stage_name
from workers.topology.rendezvous import START_SECONDS, Rendezvous
from workers.topology.replica_group import form_team
from workers.wiring import Wiring

STOP_SECONDS = 30.0
LINGER_SECONDS = 7 * 24 * 3600.0
"""A process that is done waits for the rest of the run; the control channel tells it when there is none any more."""
_log = logging.getLogger(__name__)


def run_member(config: Config, run: RunDir, meeting: Rendezvous, member: TrainingProcess, device: torch.device) -> bool:
    """Train the stages of `member` to the end of the run; whether it got there.

    Whatever goes wrong is told to the coordinator in one sentence and written to this process's log in full.
    """
    set_up_compute(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, raise_interrupted)
    _log.info("%s: process %d on %s, %d CPU threads", member.name, os.getpid(), device, config.threads)
    with ExitStack() as stack:
        try:
            control = ControlClient.connect(meeting.control, meeting.key, member.name, START_SECONDS)
            stack.callback(control.close)
            start = control.poll(START_SECONDS)
        except (TrainingError, Interrupted):
            _log.exception("%s could not reach the coordinator", member.name)
            return False
        process = _Process(config, run, meeting, member, device, control, stack)
        try:
            if start is None or start.get("type") != "start":
                raise ControlTimeout(f"{member.name}: the coordinator did not say where to start")
            keys = ("step", "total_steps", "steps_per_epoch", "attempt", "classes")
            process.train(*(int(start[key]) for key in keys))
        except BaseException as error:
            process.activity.since = None
            _log.error("%s", traceback.format_exc())
            who = stage_name(process.activity.stage) if member.replicas == 1 else member.name
            sign = failure_report(who, process.activity.step, error).to_message()
            with suppress(Exception):
                control.send({**sign, "process": member.name})
            if config.link.kind == "rpc":
                stop_agent(graceful=False, timeout=2.0)
            return False
    return True


class _Process:
    """What one training process holds, from the connection to its end."""

    def __init__(
        self,
        config: Config,
        run: RunDir,
        meeting: Rendezvous,
        member: TrainingProcess,
        device: torch.device,
        control: ControlClient,
        stack: ExitStack,
    ) -> None:
        self.config, self.run, self.meeting, self.member = config, run, meeting, member
        self.device, self.control, self.stack = device, control, stack
        self.activity = Activity(member.stages[0])
        self.wiring = Wiring(config, meeting, run)

    def train(self, start_step: int, total_steps: int, steps_per_epoch: int, attempt: int, classes: int) -> None:
        """From the first batch to the last, and the end of the run."""
        config, member = self.config, self.member
        beat = min(1.0, config.hang_timeout / 4)
        with ControlListener(self.control, self.activity, leave_signals(config), beat, self.wiring.committed) as watch:
            worker = self._prepare(start_step, steps_per_epoch, attempt, classes)
            try:
                if start_step < total_steps:  # no batch comes to a stage that goes on from the last snapshot
                    worker.run()
            finally:
                self.activity.since = None
            worker.snapshots.close()
            worker.trace.close()  # whole before the coordinator hears of the end
            if worker.left:
                self.control.send({"type": "left"})
            else:
                for stage in worker.stages:
                    save_stage(self.run, stage, writes=member.reports)
                self.control.send({"type": "done"})
            watch.linger(self.wiring.serve, LINGER_SECONDS)
            self._leave(worker)

    def _prepare(self, start_step: int, steps_per_epoch: int, attempt: int, classes: int) -> StageWorker:
        """Build the stages, open the link from the stage before, then the one to the stage after."""
        config, member, control = self.config, self.member, self.control
        if attempt == 0:
            check_steps(config, self.run, member.stages, self.device)
        trace = trace_of_member(config.trace, self.run, member)
        self.stack.callback(trace.close)
        team = self._team(attempt)
        with closed_afterwards() if self.device.type == "cpu" else nullcontext():  # DeepSpeed makes groups of its own
            stages = [Stage(config, index, steps_per_epoch, self.device, team=team) for index in member.stages]
        for stage in stages:
            stage.online = online_measures(config, stage.index, classes, steps_per_epoch, stage.compute, team)
            trace.watch(stage)
        restore(self.run, start_step, stages)
        faults = Faults(config.faults, self.run, member.stages, member.replica)
        writer = SnapshotWriter(self.run, lambda taken: control.send(taken.to_message()), faults, writes=member.reports)
        self.stack.callback(writer.abandon)
        if config.link.kind == "rpc":
            ranks = len(members(config)) + 1
            start_agent(member.name, member.rank, ranks, self.meeting.rpc_init, START_SECONDS)
        receiver = self.wiring.receiver(member, start_step, self.device)
        self.stack.callback(receiver.close)
        sender = self.wiring.sender(member, self.device)
        if sender is not None:
            self.stack.callback(sender.close)
        if self.wiring.feed is not None:
            self.wiring.feed.trace = trace
        spoken = control if self.wiring.feed is None else MeasuredReports(control, self.wiring.feed)
        reports = spoken if member.reports else None
        limit, codec = config.link.timeout, config.link.codec
        return StageWorker(stages, receiver, sender, reports, limit, writer, faults, self.activity, codec, trace)

    def _team(self, attempt: int) -> ReplicaGroup:
        member = self.member
        name = f"unit{member.unit}.{attempt}"
        alone = any(self.config.stage(index).engine.kind == "deepspeed" for index in member.stages)
        return form_team(
            self.meeting.store,
            name,
            member.replica - 1,
            member.replicas,
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
