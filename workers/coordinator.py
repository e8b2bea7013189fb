"""The coordinator: numbers the steps, feeds stage 1, follows what the stages report, ends the run.

It trains nothing and holds no weights. One thread pushes batches into the first link and is held
back by it; the main thread reads the control channel. The first sign of trouble, from whichever
side, ends the run with one cause.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console

from pipeline.config import Config
from pipeline.phases import Phases
from workers.failures import RunFailed, Sign, choose, sign_of
from workers.feed import Feed
from workers.finish import finish_run
from workers.links.agent import start_agent, stop_agent
from workers.links.base import Sender
from workers.links.control import ControlServer
from workers.links.factory import open_sender
from workers.meeting import COORDINATOR, START_SECONDS, Meeting, NoisePolicy, link_spec, stage_name
from workers.messages import Header
from workers.metrics import RunMetrics
from workers.progress import Progress
from workers.recorder import Recorder
from workers.reports import StepReport
from workers.run_files import RunDir, write_json
from workers.snapshots import SnapshotKeeper, Taken

POLL_SECONDS = 0.2
GRACE_SECONDS = 1.0
"""After the first sign of a failure, how long to listen for a better explanation."""
STOP_SECONDS = 30.0


class Coordinator:
    """One run, from the first connection to the report.

    Args:
        config: the run.
        run: where it writes.
        meeting: where its processes meet.
        device: what the final evaluation runs on.
        console: what the user sees.
        announce: called with the address of the control channel, as soon as it listens, and the steps of an epoch.
        start_step: the first step to train; more than 0 goes on from the snapshot after so many steps.
    """

    def __init__(
        self,
        config: Config,
        run: RunDir,
        meeting: Meeting,
        device: torch.device,
        console: Console,
        announce: Callable[[str | tuple[str, int], int], None],
        start_step: int = 0,
    ) -> None:
        self.config, self.run_files, self.meeting = config, run, meeting
        self.device, self.console, self.announce = device, console, announce
        self.start_step = start_step
        self.snapshots = SnapshotKeeper(config.snapshots, run, self._say)
        self.metrics = RunMetrics()
        self._signs: queue.Queue[Sign] = queue.Queue()
        self._done: set[str] = set()
        """Processes whose end needs no further word: they finished, or said why not."""
        self._recorder: Recorder | None = None
        self._names = {stage_name(index): index for index in range(1, meeting.num_stages + 1)}

    def run(self) -> None:
        """Raises `RunFailed`, or another `OnwardError` if the run could not start."""
        self._serve_metrics()
        with (
            ControlServer(self.meeting.control, self.meeting.key) as control,
            Feed(self.config, self.start_step) as feed,
        ):
            progress = Progress(self.console, feed.total_steps, feed.steps_per_epoch)
            self.announce(control.address, feed.steps_per_epoch)
            control.accept(set(self._names), START_SECONDS)
            with Recorder(self.run_files.metrics, self.metrics, progress) as recorder:
                self._recorder = recorder
                threading.Thread(target=self._feed, args=(feed, recorder), name="sender", daemon=True).start()
                self._follow(control, recorder)
        if self.config.link.kind == "rpc":
            stop_agent(graceful=True, timeout=STOP_SECONDS)
        finish_run(self.config, self.run_files, recorder, self.device, self.console)

    def report_loss_of(self, who: str, cause: str) -> None:
        """Called from any thread: a process is known to be gone."""
        step = _next_step(self._recorder, self._names[who]) if self._recorder else None
        self._signs.put(Sign(who, step, "died", cause))

    def _say(self, sentence: str) -> None:
        self.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def _serve_metrics(self) -> None:
        state: dict[str, Any] = {"stages": len(self._names)}
        if self.config.metrics.enabled:
            state["metrics"] = self.metrics.serve(self.config.metrics)
            self.console.print(f"metrics at {state['metrics']}", markup=False, highlight=False)
        write_json(self.run_files.coordinator, state)

    def _feed(self, feed: Feed, recorder: Recorder) -> None:
        """Body of the sending thread."""
        step = None
        try:
            sender = self._open_first_link()
            noise = NoisePolicy(self.config, feed.steps_per_epoch)
            phases = Phases.of(self.config, feed.steps_per_epoch)
            for batch in feed:
                step, learner = batch.step, phases.learner(batch.step)
                recorder.feed_wait = feed.wait_seconds
                recorder.batch_sent(step, batch.epoch, batch.views.shape[1], learner or len(self._names))
                labels = b"" if batch.labels is None else batch.labels.astype("<i4").tobytes()
                snapshot = self.snapshots.due(step, learner or len(self._names))
                header = Header(step, batch.epoch, noise.levels(step), batch.last, learner, snapshot, labels)
                sender.send(header, batch.views, self.config.link.timeout)
        except Exception as error:
            self._signs.put(sign_of(COORDINATOR, step, error))

    def _open_first_link(self) -> Sender:
        if self.config.link.kind == "rpc":
            ranks = self.meeting.num_stages + 1
            start_agent(COORDINATOR, ranks - 1, ranks, self.meeting.rpc_init, START_SECONDS)
        address = self.meeting.link(0, self.config.link.depth)
        return open_sender(self.config.link.kind, address, link_spec(self.config, 0), START_SECONDS)

    def _follow(self, control: ControlServer, recorder: Recorder) -> None:
        heard = time.monotonic()
        while len(self._done) < len(self._names):
            limit = self.config.link.timeout + START_SECONDS * (not recorder.latest)
            for who, message in control.poll(POLL_SECONDS):
                heard = time.monotonic()
                self._take(who, message, recorder)
            if not self._signs.empty():
                raise RunFailed(self._explain(control, recorder))
            if time.monotonic() - heard > limit:
                behind = min(self._names.values(), key=lambda index: _next_step(recorder, index))
                cause = f"no stage has reported anything for {limit:g} s (link.timeout)"
                raise RunFailed(Sign(stage_name(behind), _next_step(recorder, behind), "timeout", cause))

    def _take(self, who: str, message: dict[str, Any] | None, recorder: Recorder) -> None:
        kind = message.get("type") if message else None
        if message is None:
            if who not in self._done:
                step = _next_step(recorder, self._names[who])
                self._signs.put(Sign(who, step, "died", "its process ended without a word"))
        elif kind == "report":
            recorder.stage_report(StepReport.from_message(message))
        elif kind == "snapshot":
            self.snapshots.taken(Taken.from_message(message))
        elif kind == "done":
            self._done.add(who)
        elif kind == "failure":
            self._done.add(who)
            self._signs.put(Sign.from_message(message))

    def _explain(self, control: ControlServer, recorder: Recorder) -> Sign:
        """Listen a little longer: the first sign is often a neighbour's."""
        deadline = time.monotonic() + GRACE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            for who, message in control.poll(min(left, POLL_SECONDS)):
                self._take(who, message, recorder)
        signs = []
        while not self._signs.empty():
            signs.append(self._signs.get())
        return choose(signs)


def _next_step(recorder: Recorder, index: int) -> int:
    latest = recorder.latest.get(index)
    return latest.step + 1 if latest else 0
