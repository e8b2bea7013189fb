"""What the units of a network cost, and what follows the last unit of a stage, timed step by step on one device.

The network is cut after every unit, and each unit is a stage with the product's own block, head, loss and optimizer:

    unit    a small head, so that its time is that of the unit: twice, with and without the gradient of its input
    end     the head, the loss and the optimizer of the run, less what is the unit's; once for each shape of maps, and
            for each different override of stages
    loss    alone, on the whole batch, as its time need not be in proportion to it

Units that are alike are timed once. Where the time, or the memory, does not suffice for the batch of the run, half of it
is timed, or a quarter, ..., and a few images; the batch is on the straight line through both, since a part of the time
is spent on the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple

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

LIGHT_HEAD: Mapping[str, Any] = {"kind": "gsp", "projector": [16], "projector_norm": False}
"""Of a stage whose unit is timed."""
FEW = 4
"""Images of the first steps, or a sixteenth of the batch if that is more: they show how many there is time for."""
IMAGES = 16
"""Images that are different, among all that are computed."""
STEPS_PER_EPOCH = 1000
"""So many that no timed step is in the second epoch."""
LEAST, MOST = 1, 9
"""Timed steps of each kind."""
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


@dataclass(frozen=True, kw_only=True)
class TimedSteps:
    """Timed steps of one kind.

    Args:
        batch: images of a step of the run.
        rows: images of these.
        steps: the seconds of their parts; where there are norms to be measured, the first step measured them.
        norms_every: steps from one of the run that measures its norms to the next; 0 for never.
        fewer: the same steps of fewer images, where `rows` is less than `batch`.
    """

    batch: int
    rows: int
    steps: Sequence[Seconds]
    norms_every: int
    fewer: TimedSteps | None = None

    def of_image(self, *parts: TimedPart) -> float:
        """Seconds of these parts together for one image of a whole batch."""
        here = self._of_parts(self.steps, parts)
        if self.fewer is None:
            return here / self.rows
        slope = (here - self.fewer._of_parts(self.fewer.steps, parts)) / (self.rows - self.fewer.rows)
        return max(here + slope * (self.batch - self.rows), 0.0) / self.batch

    def of_step(self, *parts: TimedPart) -> float:
        """Seconds of parts that take as long for any number of images, with their share of the norms."""
        if not self.norms_every or len(self.steps) == 1:
            return self._of_parts(self.steps, parts)
        plain, due = self._of_parts(self.steps[1:], parts), self._of_parts(self.steps[:1], parts)
        return plain + max(due - plain, 0.0) / self.norms_every

    def _of_parts(self, steps: Sequence[Seconds], parts: Sequence[TimedPart]) -> float:
        return median(sum(step.get(part, 0.0) for part in parts) for step in steps)


class Kept(NamedTuple):
    """Bytes that autograd keeps for one image: of the unit, and of the whole stage but its loss."""

    unit: int
    every: int


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
        self._few = min(self._batch, max(FEW, self._batch // 16))
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
        timed = self._stage(number, _light(self._config))
        kept = self._kept(timed, views)
        done = self._steps(timed, views, [False, True] if number else [False], kept.every)
        beginning, inside = done[False], done[bool(number)]
        backward: tuple[TimedPart, ...] = ("backward of the loss", "backward of the end", "backward of the unit")
        saved = inside.of_image(*backward) - beginning.of_image(*backward, "images")
        block, compute = timed.stage.block, timed.stage.compute
        step = beginning.of_step(*(("optimizer", "update") if timed.stage.target else ("optimizer",)))
        cost = UnitCost(
            unit=self._names[number],
            forward=inside.of_image("unit", *(() if number else ("images",))),
            backward=inside.of_image("backward of the unit", "target"),
            input_gradient=saved if number else 0.0,
            step=max(step - min(timed.optimizer_of_end() for _ in range(3)), 0.0),
            parameters=sum(p.nbytes for p in block.parameters() if p.requires_grad),
            kept=kept.unit,
            output=sum(x[0].numel() for x in timed.output) * compute.activations.itemsize,
        )
        output = [x[:IMAGES].to(compute.activations).contiguous() for x in timed.output]
        return MeasuredUnit(cost, beginning.of_image("target"), output)

    def _end(self, number: int, own: StageOverrides, views: list[Tensor], unit: MeasuredUnit) -> EndCost:
        timed = self._stage(number, own)
        kept = self._kept(timed, views)
        steps = self._steps(timed, views, [True], kept.every)[True]
        parts = (timed.stage.head, timed.stage.objective)
        parameters = [p for part in parts if part is not None for p in part.parameters() if p.requires_grad]
        return EndCost(
            forward=steps.of_image("forward", "head") + max(steps.of_image("target") - unit.target, 0.0),
            backward=steps.of_image("backward of the end"),
            step=max(steps.of_step("optimizer", "update") - unit.cost.step, 0.0),
            loss=self._loss(timed, steps.rows) / self._batch,
            parameters=sum(p.nbytes for p in parameters),
            kept=kept.every - kept.unit,
        )

    def _stage(self, number: int, own: StageOverrides) -> TimedStage:
        overrides = StageOverrides(head=own.head, objective=own.objective, noise=own.noise, optimizer=own.optimizer)
        config = self._config.model_copy(update={"stages": {number + 1: overrides}})
        return TimedStage(Stage(config, number + 1, STEPS_PER_EPOCH, self._device), self._clock)

    def _kept(self, timed: TimedStage, views: list[Tensor]) -> Kept:
        """From a first step on a few images."""
        rows = self._few
        with timed.counting_kept(rows) as kept:
            self._step(timed, views, rows, 0, inside=True)
            return Kept(kept("unit") // rows, sum(map(kept, ("unit", "forward", "head"))) // rows)

    def _steps(
        self, timed: TimedStage, views: list[Tensor], kinds: Sequence[bool], kept: int
    ) -> dict[bool, TimedSteps]:
        """Timed steps with (`True`) and without the gradient of the input, of as many images as there is time for."""
        ends = time.monotonic() + self._slice
        rows = self._rows(timed, views, len(kinds), kept)
        less = self._turns(timed, views, kinds, self._few, ends=0.0) if self._few < rows < self._batch else {}
        more = self._turns(timed, views, kinds, rows, ends)
        return {
            kind: TimedSteps(
                batch=self._batch,
                rows=rows,
                steps=more[kind],
                norms_every=self._every,
                fewer=TimedSteps(batch=rows, rows=self._few, steps=less[kind], norms_every=0) if less else None,
            )
            for kind in kinds
        }

    def _rows(self, timed: TimedStage, views: list[Tensor], kinds: int, kept: int) -> int:
        """Images of a step of which there is room for one and time for `LEAST` of every kind; the last one computed."""

        def seconds(rows: int) -> float:
            began = time.monotonic()
            self._step(timed, views, rows, 0, inside=True)
            return time.monotonic() - began

        of_image, rows = seconds(self._few) / self._few, self._batch  # more than of many
        steps = 1 + LEAST * kinds
        while rows > self._few and (steps * rows * of_image > self._slice or rows * kept > _room(self._device)):
            rows = max(rows // 2, self._few)
        while rows > self._few and LEAST * kinds * seconds(rows) > self._slice:
            rows = max(rows // 2, self._few)
        return rows

    def _turns(
        self, timed: TimedStage, views: list[Tensor], kinds: Sequence[bool], rows: int, ends: float
    ) -> dict[bool, list[Seconds]]:
        done: dict[bool, list[Seconds]] = {kind: [] for kind in kinds}
        for turn in range(MOST):
            if turn >= LEAST and time.monotonic() > ends:
                break
            for kind in kinds:
                done[kind].append(self._step(timed, views, rows, turn, inside=kind))
        return done

    def _step(self, timed: TimedStage, views: list[Tensor], rows: int, turn: int, *, inside: bool) -> Seconds:
        number = max(self._every, 1) * turn + bool(turn)  # the norms are due at the first turn alone
        labels = torch.zeros(rows, dtype=torch.int64, device=self._device) if self._config.uses_labels else None
        batch = [repeated(view.to(self._device), rows) for view in views]
        while True:
            seconds = timed.step(batch, number, NOISE, labels=labels, inside=inside)
            if not timed.skipped:  # else the scale of fp16 is still too large
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


def _light(config: Config) -> StageOverrides:
    """No noise, and a head that takes little time, but for a loss of the user's own, which may need that of the run."""
    noise = {"kind": "none"}
    if isinstance(config.objective, CustomConfig):
        return StageOverrides(noise=noise)
    objective = {"predictor": None} if config.objective.kind == "byol" else {}
    return StageOverrides(head=dict(LIGHT_HEAD), objective=objective, noise=noise)


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
