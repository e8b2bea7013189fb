"""What the units of a network cost, and what follows the last unit of a stage, timed step by step on one device.

The network is cut after every unit, and each unit is a stage with the product's own block, head, loss and optimizer:

    unit    a small head, so that its time is that of the unit: twice, with and without the gradient of its input
    end     the head, the loss and the optimizer of the run, less what is the unit's; once for each shape of maps, and
            for each different override of stages
    loss    alone, on the whole batch, as its time need not be in proportion to it

Units that are alike are timed once. Where the time does not suffice for the batch of the run, half of it is timed, or a
quarter, ..., and images are taken to cost as much in the whole; the loss of a batch that would take too long is
on the straight line through those of two smaller ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from launch.partition.costs import EndCost, UnitCost
from launch.partition.timed_steps import TimedPart, TimedStage, repeated
from launch.plan.gpus import available_memory
from launch.plan.memories import kind_of_unit
from pipeline.config import Config, StageOverrides
from pipeline.config.objectives import CustomConfig
from pipeline.data.augment.view_kinds import view_kinds
from pipeline.shapes import block_output
from pipeline.stage.fake import without_engines
from pipeline.stage.stage import Stage
from workers.stage.device_clock import DeviceClock

LIGHT_HEAD = {"kind": "gsp", "projector": [16], "projector_norm": False}
"""Of a stage whose unit is timed."""
PROBE_ROWS, IMAGES = 4, 16
"""Images of the first steps, which show how many there is time for; different images among all that are computed."""
STEPS_PER_EPOCH = 1000
"""So many that no timed step is in the second epoch."""
LEAST, MOST = 3, 9
"""Timed steps of each kind, after one that is not timed."""
NOISE = 1.0
"""Level of the noise; where a stage has none the level has no effect."""
MANY = 10**6
Seconds = Mapping[TimedPart, float]
Tell = Callable[[str, int, int], None]
"""Is told what is measured now, how many parts are done, and how many there are."""


@dataclass(frozen=True)
class MeasuredUnit:
    """One unit.

    Args:
        cost: of it.
        target: seconds of one image in the target network (BYOL), which are in `cost.backward` too.
        output: of a few images, every view.
    """

    cost: UnitCost
    target: float
    output: list[Tensor]


class Steps(NamedTuple):
    """Timed steps of one kind.

    Args:
        rows: images of a step.
        plain: steps that measure nothing of themselves.
        due: one that measures its norms; None where none does.
    """

    rows: int
    plain: list[Seconds]
    due: Seconds | None

    def of_image(self, *parts: TimedPart) -> float:
        """Median seconds of these parts together, for one image."""
        return median(sum(step.get(part, 0.0) for part in parts) for step in self.plain) / self.rows

    def of_step(self, norms_every: int, *parts: TimedPart) -> float:
        """The same for a step, with its part of the norms that some steps measure."""
        plain = self.of_image(*parts) * self.rows
        due = 0.0 if self.due is None else sum(self.due.get(part, 0.0) for part in parts) - plain
        return plain + max(due, 0.0) / max(norms_every, 1)


class UnitMeasurement:
    """Measures the units and the ends of a configuration.

    Args:
        config: of the run.
        stages: numbers of the stages whose ends are measured.
        device: that computes.
        deadline: of all of it, by `time.monotonic`.
        clock: of the device.
        tell: is told of the progress.
    """

    def __init__(
        self,
        config: Config,
        stages: Sequence[int],
        device: torch.device,
        deadline: float,
        clock: DeviceClock,
        tell: Tell = lambda text, done, total: None,
    ) -> None:
        self._config, self._names = cut_everywhere(config), config.model.units()
        self._device, self._clock, self._deadline, self._tell = device, clock, deadline, tell
        self._batch, self._every = config.data.batch_size, config.metrics.norms_every
        self._stages = {index: config.stages.get(index, StageOverrides()) for index in stages}
        self._shapes = [block_output(self._config, number) for number in range(1, len(self._names) + 1)]
        self._units: dict[str, MeasuredUnit] = {}
        self._ends: dict[tuple[str, tuple[int, ...]], EndCost] = {}
        overrides = {_end_settings(own) for own in self._stages.values()}
        self._parts = len({kind_of_unit(name) for name in self._names}) + len(overrides) * len(set(self._shapes))

    def run(self) -> tuple[tuple[UnitCost, ...], dict[tuple[int, int], EndCost]]:
        """All units in order, and the ends by stage and last unit."""
        views, units = _images(self._config), []
        for number, name in enumerate(self._names):
            kind = kind_of_unit(name)
            if kind not in self._units:
                self._begin(f"{name}")
                self._units[kind] = self._unit(number, views)
            for own in self._stages.values():
                key = _end_settings(own), self._shapes[number]
                if key not in self._ends:
                    self._begin(f"head and loss after {name}")
                    self._ends[key] = self._end(number, own, views, self._units[kind])
            views = self._units[kind].output
            units.append(replace(self._units[kind].cost, unit=name))
        return tuple(units), {
            (stage, last): self._ends[_end_settings(own), self._shapes[last]]
            for stage, own in self._stages.items()
            for last in range(stage - 1, len(self._names))
        }

    def _unit(self, number: int, views: list[Tensor]) -> MeasuredUnit:
        own = {} if isinstance(self._config.objective, CustomConfig) else {"head": LIGHT_HEAD}
        if self._config.objective.kind == "byol":
            own["objective"] = {"predictor": None}
        timed = self._timed(number, StageOverrides(**own))
        kept, rows = self._probe(timed, views, 2 * (LEAST + 1), "unit")
        beginning, inside = self._steps(timed, views, rows, [False, True] if number else [False])
        end = min(timed.optimizer_of_end() for _ in range(LEAST))
        backward: tuple[TimedPart, ...] = ("backward of the loss", "backward of the end", "backward of the unit")
        target, block = beginning.of_image("target"), timed.stage.block
        step = beginning.of_step(self._every, *(("optimizer", "update") if timed.stage.target else ("optimizer",)))
        saved = inside.of_image(*backward) - beginning.of_image(*backward) - beginning.of_image("images")
        cost = UnitCost(
            unit=self._names[number],
            forward=inside.of_image("unit", *(() if number else ("images",))),
            backward=inside.of_image("backward of the unit", "target"),
            input_gradient=saved if number else 0.0,
            step=max(step - end, 0.0),
            parameters=sum(p.nbytes for p in block.parameters() if p.requires_grad),
            kept=kept,
            output=sum(x[0].numel() for x in timed.output) * timed.stage.compute.activations.itemsize,
        )
        return MeasuredUnit(cost, target, [x[:IMAGES].to(timed.stage.compute.activations) for x in timed.output])

    def _end(self, number: int, own: StageOverrides, views: list[Tensor], unit: MeasuredUnit) -> EndCost:
        timed = self._timed(number, own)
        kept, rows = self._probe(timed, views, LEAST + 1, "forward", "head")
        (steps, _) = self._steps(timed, views, rows, [True])
        target = max(steps.of_image("target") - unit.target, 0.0)
        parts = (timed.stage.head, timed.stage.objective)
        parameters = [p for part in parts if part is not None for p in part.parameters() if p.requires_grad]
        return EndCost(
            forward=steps.of_image("forward", "head") + target,
            backward=steps.of_image("backward of the end"),
            step=max(steps.of_step(self._every, "optimizer", "update") - unit.cost.step, 0.0),
            loss=self._loss(timed, rows) / self._batch,
            parameters=sum(p.nbytes for p in parameters),
            kept=kept,
        )

    def _timed(self, number: int, own: StageOverrides) -> TimedStage:
        index = number + 1
        overrides = own.model_copy(update={"frozen": False, "memory": {}, "precision": {}})
        config = self._config.model_copy(update={"stages": {index: overrides}})
        return TimedStage(Stage(config, index, STEPS_PER_EPOCH, self._device), self._clock)

    def _probe(self, timed: TimedStage, views: list[Tensor], steps: int, *parts: TimedPart) -> tuple[int, int]:
        """Bytes that autograd keeps of these parts for one image, and how many images there is time and room for."""
        rows = min(self._batch, PROBE_ROWS)
        with timed.counting_kept(rows) as kept:
            self._step(timed, views, rows, 0, inside=True)
            mine, every = (sum(map(kept, some)) // rows for some in (parts, ("unit", "forward", "head")))
        began = time.monotonic()
        self._step(timed, views, rows, 1, inside=True)
        seconds = (time.monotonic() - began) / rows
        possible = self._batch
        while possible > rows and (possible * seconds * steps > self._slice or possible * every > _room(self._device)):
            possible = max(possible // 2, rows)
        return mine, possible

    def _steps(self, timed: TimedStage, views: list[Tensor], rows: int, kinds: Sequence[bool]) -> tuple[Steps, Steps]:
        """Steps without and with the gradient of the input, by turns; both are the same where there is one kind."""
        done: dict[bool, list[Seconds]] = {inside: [] for inside in kinds}
        due: dict[bool, Seconds] = {}
        ends = time.monotonic() + self._slice
        for turn in range(MOST + 2):
            if turn > LEAST + 1 and time.monotonic() > ends:
                break
            for inside in kinds:
                seconds = self._step(timed, views, rows, turn, inside=inside)
                if turn == 1 and self._every:
                    due[inside] = seconds
                elif turn:
                    done[inside].append(seconds)
        every = [Steps(rows, done[inside], due.get(inside)) for inside in kinds]
        return every[0], every[-1]

    def _step(self, timed: TimedStage, views: list[Tensor], rows: int, turn: int, *, inside: bool) -> Seconds:
        # The norms are due in turn 1, but for runs that measure them at every step.
        number = 0 if turn == 1 else max(self._every, 1) * turn + 1
        labels = torch.zeros(rows, dtype=torch.int64, device=self._device) if self._config.uses_labels else None
        batch = [repeated(view.to(self._device), rows) for view in views]
        while True:
            seconds = timed.step(batch, number, NOISE, labels=labels, inside=inside)
            if not timed.skipped:  # the scale of fp16 is still too large
                return seconds

    def _loss(self, timed: TimedStage, rows: int) -> float:
        """Seconds of the loss of the whole batch."""
        labels = torch.zeros(self._batch, dtype=torch.int64, device=self._device) if self._config.uses_labels else None

        def seconds(count: int) -> float:
            of_rows = None if labels is None else labels[:count]
            return median([timed.loss(count, of_rows) for _ in range(LEAST + 1)][1:])

        half, most = max(rows // 2, 2), rows
        if rows < self._batch:
            few, many = seconds(half), seconds(most)
            line = many + (many - few) / max(most - half, 1) * (self._batch - most)
            if line * (LEAST + 1) > self._slice:
                return line
        return seconds(self._batch)

    def _begin(self, text: str) -> None:
        done = len(self._units) + len(self._ends)
        self._slice = max(self._deadline - time.monotonic(), 0.0) / (self._parts - done)
        self._tell(text, done, self._parts)


def cut_everywhere(config: Config) -> Config:
    """The same network with a stage for each unit, each of which keeps what its backward pass needs."""
    plain = without_engines(config)
    units = plain.model.units()
    return plain.model_copy(
        update={
            "model": plain.model.model_copy(update={"cuts": tuple(units[:-1])}),
            "mode": "simultaneous",
            "memory": plain.memory.model_copy(update={"recompute": "none"}),
            "train": plain.train.model_copy(update={"max_skipped": MANY}),
            "stages": {},
        }
    )


def _end_settings(own: StageOverrides) -> str:
    """All that the end of a stage depends on, beside its input."""
    return own.model_dump_json(include={"head", "objective", "noise", "optimizer"})


def _images(config: Config) -> list[Tensor]:
    """Random images, `[B, S, S, 3]` a view."""
    source = torch.Generator().manual_seed(0)
    sizes = [kind.size for kind in view_kinds(config.data, config.num_views)]
    return [torch.randint(0, 256, (IMAGES, size, size, 3), dtype=torch.uint8, generator=source) for size in sizes]


def _room(device: torch.device) -> int:
    """Bytes that what autograd keeps may take: a third of what there is, as gradients and workspaces come to it."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    return free // 3
