"""The coordinator: numbers the steps, feeds stage 1, follows what the stages report, ends the run.

It trains nothing and holds no weights. One thread (`sending`) pushes batches into the first link and is held
back by it; the main thread (`oversight`) reads the control channel. The first sign of trouble, from whichever
side, ends the run with one cause, or brings the stage back that it befell.
"""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console

from pipeline.config import Config
from workers.failures import RunFailed
from workers.feed import Feed
from workers.feeding import NumbersFeed, open_feed
from workers.finish import finish_run
from workers.links.agent import start_agent, stop_agent
from workers.links.base import Sender
from workers.links.control import ControlServer
from workers.meeting import START_SECONDS, Meeting
from workers.metrics import RunMetrics
from workers.oversight import Oversight, Supervisor
from workers.progress import Progress
from workers.recorder import Recorder
from workers.run_files import RunDir, write_json
from workers.sending import Sending
from workers.snapshots import SnapshotKeeper
from workers.topology import COORDINATOR, members
from workers.wiring import Wiring

STOP_SECONDS = 30.0


class Coordinator:
    """One run, from the first connection to the report.

    Args:
        config: the run.
        run: where it writes.
        meeting: where its processes meet.
        device: what the final evaluation runs on.
        console: what the user sees.
        supervisor: who started the processes.
        start_step: the first step to train; more than 0 goes on from the snapshot after so many steps.
    """

    def __init__(
        self,
        config: Config,
        run: RunDir,
        meeting: Meeting,
        device: torch.device,
        console: Console,
        supervisor: Supervisor,
        start_step: int = 0,
    ) -> None:
        self.config, self.run_files, self.meeting = config, run, meeting
        self.device, self.console, self.supervisor = device, console, supervisor
        self.start_step = start_step
        self.metrics = RunMetrics()
        self.oversight: Oversight | None = None
        """None until the control channel is open."""
        self._wiring = Wiring(config, meeting, run)

    def run(self) -> None:
        """Raises `RunFailed`, or another `OnwardError` if the run could not start."""
        self._serve_metrics()
        with (
            ControlServer(self.meeting.control, self.meeting.key) as control,
            open_feed(self.config, self.start_step) as feed,
        ):
            progress = Progress(self.console, feed.total_steps, feed.steps_per_epoch)
            self.supervisor.announce(control.address)
            with Recorder(self.run_files.metrics, self.metrics, progress) as recorder:
                self.oversight, sending = self._take_up(control, feed, recorder)
                self.oversight.gather()
                sending.start(recorder)
                self.oversight.follow()
                sending.over.set()
                control.broadcast({"type": "finish"})
        if self.config.link.kind == "rpc":
            stop_agent(graceful=True, timeout=STOP_SECONDS)
        self._wiring.close()
        if sending.left is not None:
            raise RunFailed(self.oversight.interrupted())
        finish_run(self.config, self.run_files, recorder, self.device, self.console)

    def _take_up(
        self, control: ControlServer, feed: Feed | NumbersFeed, recorder: Recorder
    ) -> tuple[Oversight, Sending]:
        """Who feeds the run and who follows it; they know of each other."""

        def committed(steps: int) -> None:
            control.broadcast({"type": "committed", "steps": steps})
            self._wiring.committed(steps)

        keeper = SnapshotKeeper(self.config.snapshots, self.run_files, self._say, self.start_step, committed)
        sending = Sending(self.config, feed, self._open_first_link, self._wiring, keeper)
        oversight = Oversight(
            self.config,
            control,
            self.supervisor,
            keeper,
            recorder,
            sending,
            feed.steps_per_epoch,
            feed.num_classes,
            self.start_step,
            self._say,
            self.metrics.restarted,
        )
        sending.failed = oversight.sending_failed
        return oversight, sending

    def _say(self, sentence: str) -> None:
        self.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def _serve_metrics(self) -> None:
        state: dict[str, Any] = {"stages": self.config.num_stages}
        if self.config.metrics.enabled:
            state["metrics"] = self.metrics.serve(self.config.metrics)
            self.console.print(f"metrics at {state['metrics']}", markup=False, highlight=False)
        write_json(self.run_files.coordinator, state)

    def _open_first_link(self) -> Sender:
        if self.config.link.kind == "rpc":
            ranks = len(members(self.config)) + 1
            start_agent(COORDINATOR, ranks - 1, ranks, self.meeting.rpc_init, START_SECONDS)
        return self._wiring.first_sender()
