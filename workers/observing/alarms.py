"""Detects seven problems of a run; each is reported once when it begins and once when it ends.

`collapse`: the features of a stage have become one direction. `nonfinite`: a loss or gradient is not finite. `starved`:
the pipeline waits for images. `bottleneck`: one process is much busier than the others. `silent`: a stage reports
nothing. `throttled`: a GPU runs slower than it could. `mismatch`: a step that was done again got other bits, which
`RepeatedSteps` finds; it ends when the run is started again. The limit at which an alarm ends is apart from the one
that raises it, so a value near the limit does not raise it repeatedly (hysteresis).
"""

from __future__ import annotations

import shlex
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from math import sqrt
from typing import Any

from pipeline.config import Config
from pipeline.shapes import block_output, channels_of
from workers.control.step_report import ThrottleReason
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.backlog import OldestMissing
from workers.observing.observer import Event, EventKind, RunFacts
from workers.run.files import relative_to_cwd
from workers.topology.processes import training_processes
from workers.topology.rendezvous import START_SECONDS

THROTTLED: dict[ThrottleReason, str] = {
    "power_cap": "its power cap (nvidia-smi -q -d POWER)",
    "hw_slowdown": "a slowdown that its board asks for: look at cooling and power supply",
    "sw_thermal": "heat, before the hardware's limit: look at its cooling",
    "hw_thermal": "heat, at the hardware's limit: look at its cooling",
    "power_brake": "a power brake from outside: look at the power supply of the host",
}
MARGIN = 0.2
"""Hysteresis: a value must be past the limit by this share of it before the alarm ends."""
GRADIENT_STEPS = 5
"""Consecutive steps with overflowing gradients and a finite loss; single ones are normal in fp16."""


@dataclass
class Alarms:
    """The alarms of one run; an observer whose `tick` is called from time to time.

    Args:
        config: the run.
        tell: is called with each alarm that begins or ends, and updates `active`.
        active: which alarms are on.
    """

    config: Config
    tell: Callable[[Event], None]
    active: ActiveAlarms
    _: KW_ONLY
    _skipped: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Per stage: steps skipped in a row, and steps since the last skipped one."""
    _best: dict[int, float] = field(default_factory=dict)
    """Per stage: the collapse level of features that spread evenly."""
    _calm_since: float = 0.0
    _path: str = "RUN"

    def __post_init__(self) -> None:
        self._settings = self.config.alarms
        self._processes = [m.stages for m in training_processes(self.config) if m.replica == 1]
        self._window: deque[dict[str, Any]] = deque(maxlen=self._settings.window_steps)

    def run_started(self, facts: RunFacts) -> None:
        """See `Observer.run_started`."""
        self._path = shlex.quote(str(relative_to_cwd(facts.path)))

    def step_done(self, line: Mapping[str, Any]) -> None:
        """See `Observer.step_done`."""
        # End to end, only the last block has a loss, and every block skips with it: report that block alone.
        one_loss, losses = self.config.mode == "end_to_end", [stage["loss"] for stage in line["stages"]]
        for stage in line["stages"]:
            loss = losses[-1] if one_loss else stage["loss"]
            mine = loss is not None or not one_loss or stage["stage"] == self.config.num_stages
            self._nonfinite(line["step"], stage, loss, mine)
        if not self._settings.enabled:
            return
        for stage in line["stages"]:
            if (level := stage.get("online", {}).get("collapse")) is not None:
                self._collapse(line["step"], stage["stage"], level)
            self._throttled(line["step"], stage["stage"], stage.get("throttled") or ())
        self._window.append(dict(line))
        if "seconds" not in line["added"]:
            self._window.clear()  # the first step, or a process was replaced: the length of this step is unknown
        if len(self._window) == self._window.maxlen:
            self._shares(line["step"])

    def event(self, event: Event) -> None:
        """See `Observer.event`."""

    def run_ended(self, outcome: str) -> None:
        """See `Observer.run_ended`."""

    def tick(self, owed: OldestMissing | None) -> None:
        """Check for silence; `owed` is the oldest missing report."""
        if not self._settings.enabled:
            return
        limit, now = self._settings.silent_seconds, time.monotonic()
        if owed is not None and owed.seconds > limit + START_SECONDS * owed.first:
            self._raise("silent", owed.stage, owed.step, self._silence(owed))
        # Clear only after reports have come without a long gap for a while: one per minute is not the normal pace.
        if owed is not None and owed.seconds > limit * (1 - MARGIN):
            self._calm_since = now
        if owed is None or now - self._calm_since > limit:
            for stage in self.active.stages("silent"):
                over = "images come again" if stage is None else f"stage {stage} reports again"
                self._clear("silent", stage, None, over)

    def mismatch(self, stage: int, step: int, text: str) -> None:
        """A step that was done again got other bits than before."""
        self._raise("mismatch", stage, step, text)

    def _silence(self, owed: OldestMissing) -> str:
        since = f"for {owed.seconds:.0f} s"
        if owed.stage is None:
            return f"no images have come {since} and every stage waits: see the feed in logs/ of the run, and data.root"
        end = "is brought back" if self.config.restart == "stage" else "ends the run"
        return (
            f"stage {owed.stage} has reported nothing {since} and step {owed.step} waits for it: see its log in logs/; "
            f"one that computes longer than hang_timeout={self.config.hang_timeout:g} {end}"
        )

    def _nonfinite(self, step: int, stage: Mapping[str, Any], loss: float | None, mine: bool) -> None:
        index, (in_a_row, since) = stage["stage"], self._skipped.get(stage["stage"], (0, 0))
        skipped = stage["added"].get("skipped", 0) > 0 and mine
        in_a_row, since = (in_a_row + 1, 0) if skipped else (0, since + 1)
        self._skipped[index] = (in_a_row, since)
        if skipped and (loss is None or in_a_row >= GRADIENT_STEPS):
            found = "the loss is" if loss is None else f"for {in_a_row} steps in a row gradients were"
            limit = f"after {self.config.train.max_skipped} in a row the run ends"
            remedy = f"lower optimizer.lr or warm up longer, for this stage alone with stages.{index}.optimizer"
            shows = f"onward replay {self._path} --stage {index} --step {step} shows where it began"
            text = f"stage {index}: {found} not finite and the step was skipped ({limit}): {remedy}. {shows}"
            self._raise("nonfinite", index, step, text)
        elif since >= self._settings.window_steps:
            self._clear("nonfinite", index, step, f"stage {index}: finite for {since} steps")

    def _collapse(self, step: int, index: int, level: float) -> None:
        if index not in self._best:
            self._best[index] = 1 / sqrt(channels_of(block_output(self.config, index)))
        share, limit = level / self._best[index], self._settings.collapse_below
        if share < limit:
            text = (
                f"stage {index}: its features have collapsed, they spread {100 * share:.1f} % as far as they could "
                f"(alarms.collapse_below={limit:g}): lower optimizer.lr or change the objective, for this stage alone "
                f"with stages.{index}"
            )
            self._raise("collapse", index, step, text)
        elif share > limit * (1 + MARGIN):
            self._clear("collapse", index, step, f"stage {index}: its features spread {100 * share:.1f} % again")

    def _throttled(self, step: int, index: int, reasons: Sequence[ThrottleReason]) -> None:
        if reasons:
            why = "; ".join(THROTTLED[reason] for reason in reasons)
            self._raise("throttled", index, step, f"stage {index}: its GPU runs slower than it could: {why}")
        else:
            self._clear("throttled", index, step, f"stage {index}: nothing slows its GPU down any more")

    def _shares(self, step: int) -> None:
        """Check how the stages spent the time of the window."""
        seconds = sum(line["added"]["seconds"] for line in self._window)
        self._starved(step, self._spent("wait_input").get(1, 0.0) / seconds)
        if self.config.mode == "simultaneous" and not self.config.in_one_process:
            self._bottleneck(step, seconds)

    def _starved(self, step: int, share: float) -> None:
        limit, steps = self._settings.starved_above, self._settings.window_steps
        if share > limit:
            text = (
                f"stage 1 waits for images {100 * share:.0f} % of the time, over the last {steps} steps: raise "
                f"data.workers (it is {self.config.data.workers}), or keep the data set in memory or packed"
            )
            self._raise("starved", 1, step, text)
        elif share < limit * (1 - MARGIN):
            self._clear("starved", 1, step, f"stage 1 waits for images {100 * share:.0f} % of the time")

    def _bottleneck(self, step: int, seconds: float) -> None:
        copying = self._spent("copying")
        spent = {stage: seconds + copying.get(stage, 0.0) for stage, seconds in self._spent("busy").items()}
        busy = [sum(spent.get(stage, 0.0) for stage in stages) for stages in self._processes]
        limit, learners = self._settings.bottleneck_above, self.config.learners
        for stages, mine in zip(self._processes, busy, strict=True):
            # Frozen stages only run forward: beside them every stage that learns would look slow.
            others = [
                seconds
                for other, seconds in zip(self._processes, busy, strict=True)
                if other != stages and not set(other).isdisjoint(learners)
            ]
            if not any(others):
                continue
            index, ratio = max(stages, key=lambda stage: spent.get(stage, 0.0)), mine * len(others) / sum(others)
            # A process that waits most of the time is no bottleneck: all of them wait for images.
            if ratio > limit and mine > seconds / 2:
                does = "computes and copies" if copying.get(index, 0.0) > spent[index] / 2 else "computes"
                text = (
                    f"stage {index} {does} {ratio:.1f} times as long as the others on average, which wait for it: "
                    f"move a cut (model.cuts), or give it replicas (stages.{index}.replicas)"
                )
                self._raise("bottleneck", index, step, text)
            elif ratio <= 1 + (limit - 1) * (1 - MARGIN):
                self._relieve(stages, step, f"computes {ratio:.1f} times as long")
            elif mine < seconds / 2 * (1 - MARGIN):
                self._relieve(stages, step, "waits itself most of the time")

    def _relieve(self, stages: Sequence[int], step: int, why: str) -> None:
        for stage in stages:
            self._clear("bottleneck", stage, step, f"stage {stage} {why}")

    def _spent(self, what: str) -> dict[int, float]:
        """Per stage, the sum over the window of what its steps added to a total."""
        spent: dict[int, float] = {}
        for stage in (stage for line in self._window for stage in line["stages"]):
            spent[stage["stage"]] = spent.get(stage["stage"], 0.0) + stage["added"].get(what, 0.0)
        return spent

    def _log(self, kind: EventKind, name: str, stage: int | None, step: int | None, text: str) -> None:
        self.tell(Event(time=time.time(), kind=kind, name=name, stage=stage, step=step, text=text))

    def _raise(self, name: str, stage: int | None, step: int | None, text: str) -> None:
        if (name, stage) not in self.active.on:
            self._log("alarm", name, stage, step, text)

    def _clear(self, name: str, stage: int | None, step: int | None, text: str) -> None:
        if (name, stage) in self.active.on:
            self._log("cleared", name, stage, step, text)
