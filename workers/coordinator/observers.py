"""Sets up all observers of a run, in either runtime, from before its data set is opened until after its report."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from pipeline.config import Config
from pipeline.config.secrets import without_secrets
from workers.control.failures import Interrupted, RunFailed
from workers.coordinator.recorder import Recorder
from workers.coordinator.throughput import WINDOW_SECONDS
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.alarms import Alarms
from workers.observing.backlog import OldestMissing
from workers.observing.event_log import EventLog
from workers.observing.goodput import Goodput
from workers.observing.headroom_watch import HeadroomWatch
from workers.observing.history_file import read_events
from workers.observing.live import History, LiveServer
from workers.observing.metrics import RunMetrics
from workers.observing.observer import Event, EventKind, Observer, Observers, RunFacts
from workers.observing.repeated_steps import RepeatedSteps
from workers.observing.terminal.console import Console
from workers.observing.terminal.progress import Progress
from workers.observing.trackers import start_trackers
from workers.run.files import RunDir, write_json
from workers.run.no_kernel import no_promise


class Observation:
    """The observers of a run; a context manager that tells them at its end how the run ended.

    Args:
        config: the run.
        run: where it writes.
        terminal: the console.
        start_step: the first step of this attempt.
        failed: called with the error that ended the run, before the observers, which may take long.
    """

    def __init__(
        self,
        config: Config,
        run: RunDir,
        terminal: Console,
        start_step: int = 0,
        failed: Callable[[BaseException], object] = lambda error: None,
    ) -> None:
        self.config, self.run, self.terminal, self.start_step = config, run, terminal, start_step
        self._active = ActiveAlarms()
        self.goodput = Goodput.of(run, began=time.time())
        self.metrics, self.progress = RunMetrics(self._active, self.goodput), Progress(terminal, self._active)
        self._headroom = HeadroomWatch(config, WINDOW_SECONDS)
        self.history = History(self._active, self.goodput, self._headroom)
        # The history reads the events of earlier attempts, so it comes before the log that appends new ones; an event
        # counts as a sign of life once it is written.
        members: list[Observer] = [self.history, EventLog(run.events), self.goodput, self.metrics, self.progress]
        self.observers = Observers(members, terminal.warn, first=self._active.event)
        self.alarms = Alarms(config, self.observers.event, self._active)
        self._server: LiveServer | None = None
        self._state: dict[str, Any] = {}
        self._failed, self._begun = failed, False
        self._repeated = RepeatedSteps(run, start_step, config.restart == "stage", self.alarms.mismatch)

    def __enter__(self) -> Self:
        """Serve metrics and page, and write their address to `coordinator.json`.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        state = self._state = {"stages": self.config.num_stages, "attempt": self.goodput.start.to_json()}
        if self.config.metrics.enabled:
            self._server = LiveServer(self.config.metrics, self.metrics.registry, self.history)
            state["metrics"] = self._server.metrics_url
            if self.config.metrics.page:
                state["page"] = self._server.url
            self.terminal.say(self._server.invitation)
        write_json(self.run.coordinator, state)
        return self

    def begin(self, total_steps: int, steps_per_epoch: int) -> None:
        """Start the observers: the data set is open, and the first step follows. Completes `coordinator.json`.

        Raises:
            ConfigError: a tracker cannot be started.
            UserError: `events.jsonl` is damaged.
        """
        facts = RunFacts(
            name=self.run.path.absolute().name,
            path=self.run.path,
            config=without_secrets(self.config),
            stages=self.config.num_stages,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            start_step=self.start_step,
            started=time.time(),
        )
        write_json(
            self.run.coordinator, {**self._state, "total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
        )
        for event in read_events(self.run.events)[0]:
            self._active.event(event)
        self.observers.add(start_trackers(self.config.trackers, facts, self.observers.event))
        self.observers.add(self.alarms)
        self._begun = True
        self.observers.run_started(facts)
        for name, stage in sorted(self._active.on, key=str):
            self.post("cleared", name, "its processes were started again", stage)
        if (sentence := no_promise(self.config)) is not None:
            self.note(sentence)
        if self.start_step:
            self.post("restart", "restart", f"the run goes on after {self.start_step} steps", step=self.start_step)
        self.observers.deliver()

    def recorder(self, total_steps: int) -> Recorder:
        """The recorder, which receives the reports of the stages."""
        config = self.config
        periods = config.metrics.every, config.snapshots.every, config.digests.every
        return Recorder(
            self.run.metrics,
            start_step=self.start_step,
            total_steps=total_steps,
            metrics=self.metrics,
            progress=self.progress,
            observers=self.observers,
            goodput=self.goodput,
            headroom=self._headroom,
            line_ends=[period for period in periods if period],
            digested=self._repeated.reported,
        )

    def post(self, kind: EventKind, name: str, text: str, stage: int | None = None, step: int | None = None) -> None:
        """Post an event; may be called from any thread, and is delivered on the main one."""
        self.observers.post(Event(time=time.time(), kind=kind, name=name, stage=stage, step=step, text=text))

    def committed(self, steps: int) -> None:
        """A snapshot after `steps` steps is complete; may be called from any thread."""
        self._repeated.committed(steps)
        self.post("snapshot", "snapshot", f"the snapshot after {steps} steps is complete", step=steps)

    def note(self, text: str) -> None:
        """A message that the user should read; may be called from any thread."""
        self.post("note", "note", text)

    def tick(self, owed: OldestMissing | None = None) -> None:
        """Called on the main thread regularly: delivers posted events, and checks how long `owed` has been missing."""
        self.observers.deliver()
        self.observers.call(self.alarms, "tick", owed)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._failed(error)
        if self._begun:
            self.observers.deliver()
            self.observers.run_ended(outcome_of(error))
        if self._server is not None:
            self._server.close()


def outcome_of(error: BaseException | None) -> str:
    """How a run ended, for `Observer.run_ended`."""
    if error is None:
        return "done"
    asked = isinstance(error, RunFailed) and error.failure.kind == "interrupted"
    if asked or isinstance(error, Interrupted | KeyboardInterrupt):
        return "interrupted"
    return f"failed: {' '.join(str(error).split()) or type(error).__name__}"
