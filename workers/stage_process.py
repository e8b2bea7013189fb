"""The life of one stage's process: connect, build the stage, open the links, work, save, leave."""

from __future__ import annotations

import logging
import os
import signal
import traceback
from contextlib import ExitStack, suppress

import torch

from pipeline.config import Config
from pipeline.errors import TrainingError
from pipeline.stage import Stage
from workers.compute import set_up_compute
from workers.failures import Interrupted, raise_interrupted, sign_of
from workers.links.agent import start_agent, stop_agent
from workers.links.control import ControlClient
from workers.links.factory import open_receiver, open_sender
from workers.meeting import START_SECONDS, Meeting, link_spec, stage_name
from workers.run_files import RunDir
from workers.snapshots import SnapshotWriter, restore
from workers.stage_worker import StageWorker
from workers.weights import save_stage

STOP_SECONDS = 30.0
_log = logging.getLogger(__name__)


def run_stage_process(
    config: Config,
    run: RunDir,
    meeting: Meeting,
    index: int,
    device: torch.device,
    steps_per_epoch: int,
    start_step: int,
) -> bool:
    """Train stage `index` from `start_step` to the end of the run; whether it got there.

    Whatever goes wrong is told to the coordinator in one sentence and written to this process's log in full.
    """
    set_up_compute(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, raise_interrupted)
    name = stage_name(index)
    _log.info("%s: process %d on %s, %d CPU threads", name, os.getpid(), device, config.threads)
    worker: StageWorker | None = None
    with ExitStack() as stack:
        try:
            control = ControlClient.connect(meeting.control, meeting.key, name, START_SECONDS)
        except (TrainingError, Interrupted):
            _log.exception("%s could not reach the coordinator", name)
            return False
        stack.callback(control.close)
        try:
            stage = Stage(config, index, steps_per_epoch, device)
            restore(run, start_step, [stage])
            writer = SnapshotWriter(run, lambda taken: control.send(taken.to_message()))
            worker = _connect(config, meeting, stage, control, writer, stack)
            worker.run()
            writer.close()
            control.send({"type": "done", "digest": save_stage(run, stage)})
            _leave_orderly(config, worker)
        except BaseException as error:
            # From here a signal changes nothing: this process is leaving, and must still say why.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            _log.error("%s", traceback.format_exc())
            with suppress(Exception):
                control.send(sign_of(name, worker.step if worker else None, error).to_message())
            if config.link.kind == "rpc":
                stop_agent(graceful=False, timeout=2.0)
            return False
    return True


def _connect(
    config: Config, meeting: Meeting, stage: Stage, control: ControlClient, writer: SnapshotWriter, stack: ExitStack
) -> StageWorker:
    """Open the link from the stage before, then the one to the stage after."""
    kind, index = config.link.kind, stage.index
    if kind == "rpc":
        start_agent(stage_name(index), index - 1, meeting.num_stages + 1, meeting.rpc_init, START_SECONDS)
    device = next(stage.parameters()).device
    address = meeting.link(index - 1, config.link.depth)
    receiver = open_receiver(kind, address, link_spec(config, index - 1), START_SECONDS, device)
    stack.callback(receiver.close)
    sender = None
    if index < meeting.num_stages:
        address = meeting.link(index, config.link.depth)
        sender = open_sender(kind, address, link_spec(config, index), START_SECONDS)
        stack.callback(sender.close)
    return StageWorker(stage, receiver, sender, control, config.link.timeout, writer)


def _leave_orderly(config: Config, worker: StageWorker) -> None:
    worker.receiver.close()
    if worker.sender is not None:
        worker.sender.close()
    if config.link.kind == "rpc":
        stop_agent(graceful=True, timeout=STOP_SECONDS)
