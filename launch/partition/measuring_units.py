"""What the units of a network cost, and what follows the last unit of a stage, timed step by step on one device.

The network is cut after every unit, and each unit is a stage with the product's own block, head, loss and optimizer:

    unit    a small head, so that its time is that of the unit: with and without the gradient of its input
    end     the head, the loss and the optimizer of the run, less what is the unit's; once for each shape of maps and
            each different override of stages
    loss    alone, on the whole batch, as all replicas compute it

Units that are alike are timed once. Not in it: what measures beside the training (`evaluation.online`), digests, and
compiling: modules that a run compiles are timed as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from launch.partition.costs import EndCost, UnitCost
from launch.partition.finest import FinestRun
from launch.partition.timed_series import StepSeries
from launch.partition.timed_steps import TimedPart, TimedStage
from launch.plan.memories import kind_of_unit
from pipeline.backbones.block import Block
from pipeline.backbones.module import build_traced_blocks
from pipeline.config import Config, StageOverrides
from pipeline.config.model import ModuleConfig, ViTConfig
from pipeline.config.objectives import BYOLConfig, CustomConfig
from pipeline.data.augment.view_kinds import view_kinds
from pipeline.stage.stage import Stage
from workers.stage.device_clock import DeviceClock

LIGHT_HEAD: Mapping[str, Any] = {"kind": "gsp", "projector": [16], "projector_norm": False}
"""Of a stage whose unit is timed."""
IMAGES = 16
"""Images that are different, among all that are computed."""
STEPS_PER_EPOCH = 1000
"""So many that no timed step is in the second epoch."""
MANY = 10**6
BACKWARD: tuple[TimedPart, ...] = ("backward of the loss", "backward of the end", "backward of the unit")
Tell = Callable[[str, int, int], None]
"""Is told what is measured now, how many parts are done, and how many there are."""


@dataclass(frozen=True)
class MeasuredUnit:
    """One unit.

    Args:
        cost: of it.
        backward: as in `cost`, without the target network (BYOL).
        output: of a few images, every view.
    """

    cost: UnitCost
    backward: float
    output: list[Tensor]


class UnitMeasurement:
    """Measures the units and the ends of a run.

    Args:
        finest: of `cut_everywhere`; replicas do not matter.
        stages: numbers of the stages that a plan may have, counted from 1.
        device: that computes.
        deadline: of all of it, by `time.monotonic`.
        clock: of the device.
        tell: is told of the progress.
    """

    def __init__(
        self,
        finest: Config,
        stages: Sequence[int],
        device: torch.device,
        *,
        deadline: float,
        clock: DeviceClock,
        tell: Tell = lambda text, done, total: None,
    ) -> None:
        self._finest, self._stages = finest, tuple(stages)
        self._device, self._clock, self._deadline, self._tell = device, clock, deadline, tell
        self._names = self._finest.model.units()
        self._runs = {stage: FinestRun(self._finest, stage) for stage in stages}
        self._units: dict[Hashable, MeasuredUnit] = {}
        self._ends: dict[Hashable, EndCost] = {}
        places = [(stage, number) for stage in stages for number in range(len(self._names))]
        self._left = len({self._unit_key(*place) for place in places})
        self._left += len({self._end_key(*place) for place in places if place[1] >= place[0] - 1})
        self._parts = self._left

    def run(self) -> tuple[dict[int, tuple[UnitCost, ...]], dict[tuple[int, int], EndCost]]:
        """All units in order, as each stage would have them, and the ends by stage and last unit."""
        units = {stage: tuple(self._of_stage(stage)) for stage in self._stages}
        last = len(self._names)
        return units, {
            (stage, number): self._ends[self._end_key(stage, number)]
            for stage in self._stages
            for number in range(stage - 1, last)
        }

    def _of_stage(self, stage: int) -> Iterator[UnitCost]:
        views, ends = _images(self._finest), dict[Hashable, int]()
        for number in range(stage - 1, len(self._names)):
            key = self._end_key(stage, number)
            ends[key] = ends.get(key) or number  # not after the first unit, whose input has no gradient, if possible
        for number, name in enumerate(self._names):
            key, end = self._unit_key(stage, number), self._end_key(stage, number)
            if key not in self._units:
                self._units[key] = self._unit(stage, number, views, self._slice(name))
            if end not in self._ends and ends.get(end) == number:
                seconds = self._slice(f"head and loss after {name}")
                self._ends[end] = self._end(stage, number, views, self._units[key], seconds)
            views = self._units[key].output
            cost = self._units[key].cost
            yield replace(cost, unit=name, output=cost.output if number < len(self._names) - 1 else 0)

    def _unit(self, stage: int, number: int, views: list[Tensor], seconds: float) -> MeasuredUnit:
        run, inner = self._runs[stage], number > 0
        series = self._series(run, number, _light(run), views, seconds)
        timed = series.timed
        beginning, inside = series.run(False, True) if inner else 2 * series.run(False)
        compute, target = timed.stage.compute, timed.stage.target is not None
        step = beginning.of_step(*(("optimizer", "update") if target else ("optimizer",)))
        backward = inside.of_image("backward of the unit")
        cost = UnitCost(
            unit=self._names[number],
            forward=inside.of_image("unit") if inner else inside.of_image("unit", "images"),
            backward=backward + inside.of_image("target"),
            input_gradient=inside.of_image(*BACKWARD) - beginning.of_image(*BACKWARD, "images") if inner else 0.0,
            step=max(step - min(timed.optimizer_of_end() for _ in range(3)), 0.0),
            parameters=sum(p.nbytes for p in timed.stage.block.parameters() if p.requires_grad),
            kept=series.kept_of_unit,
            output=_bytes(timed.output, compute.activations),
        )
        if run.stage(1).frozen:
            cost = UnitCost(
                unit=cost.unit, forward=cost.forward, backward=0.0, input_gradient=0.0, step=0.0, parameters=0,
                kept=0, output=cost.output,
            )  # fmt: skip
        output = [x[:IMAGES].to(compute.activations).contiguous() for x in timed.output]
        return MeasuredUnit(cost, backward, output)

    def _end(self, stage: int, number: int, views: list[Tensor], unit: MeasuredUnit, seconds: float) -> EndCost:
        run = self._runs[stage]
        series = self._series(run, number, None, views, seconds)
        timed = series.timed
        (steps,) = series.run(True)
        if run.stage(1).frozen:
            return EndCost(
                forward=steps.of_image("forward"), backward=0.0, step=0.0, loss=0.0, parameters=0, kept=0
            )  # fmt: skip
        # The gradient that a head makes of a map is not channels-last: a unit takes longer with it than inside.
        laid_out = timed.stage.compute.config.channels_last and number > 0
        own = steps.of_image("backward of the unit") - unit.backward if laid_out else 0.0
        parts = (timed.stage.head, timed.stage.objective)
        parameters = [p for part in parts if part is not None for p in part.parameters() if p.requires_grad]
        return EndCost(
            forward=steps.of_image("forward", "head"),
            backward=steps.of_image("backward of the end") + max(own, 0.0),
            step=max(steps.of_step("optimizer", "update") - unit.cost.step, 0.0),
            loss=series.loss(steps.rows) / self._finest.data.batch_size,
            parameters=sum(p.nbytes for p in parameters),
            kept=series.kept_of_end,
        )

    def _series(
        self, run: FinestRun, number: int, changed: StageOverrides | None, views: list[Tensor], seconds: float
    ) -> StepSeries:
        """Steps of unit `number` as a stage, or as a part of one that begins with it, whose settings are changed."""
        index, last, changes = number + 1, changed is None, changed.model_dump(exclude_defaults=True) if changed else {}
        own = run.config.stages[index].model_copy(update={**changes, "frozen": False})
        train = run.config.train.model_copy(update={"max_skipped": MANY})
        config = run.config.model_copy(update={"stages": {index: own}, "train": train, "mode": "simultaneous"})
        block = self._blocks[number] if isinstance(config.model, ModuleConfig) else None
        stage = Stage(config, index, STEPS_PER_EPOCH, self._device, block=deepcopy(block))
        return StepSeries(
            TimedStage(stage, self._clock, last=last),
            views,
            batch=config.data.batch_size,
            norms_every=config.metrics.norms_every,
            labelled=config.uses_labels,
            seconds=seconds,
        )

    @cached_property
    def _blocks(self) -> Sequence[Block]:
        """All units of a network of the user's own, which is built as a whole."""
        model = self._finest.model
        assert isinstance(model, ModuleConfig)
        return build_traced_blocks(model, self._finest.data.image_size, self._finest.seed)

    def _unit_key(self, stage: int, number: int) -> Hashable:
        known = not isinstance(self._finest.model, ModuleConfig)
        kind = kind_of_unit(self._names[number]) if known else number
        normed = isinstance(self._finest.model, ViTConfig) and number == len(self._names) - 1  # at the network's end
        return *self._runs[stage].of_units, kind, normed

    def _end_key(self, stage: int, number: int) -> Hashable:
        run = self._runs[stage]
        return run.of_ends, *run.shapes(number + 2)

    def _slice(self, text: str) -> float:
        """The time for the next part: what is left, shared evenly."""
        self._tell(text, self._parts - self._left, self._parts)
        seconds = max(self._deadline - time.monotonic(), 0.0) / max(self._left, 1)
        self._left -= 1
        return seconds


def _light(run: FinestRun) -> StageOverrides:
    """No noise, and a head that takes little time, but for a loss of the user's own, which may need that of the run."""
    noise, objective = {"kind": "none"}, run.stage(1).objective
    if isinstance(objective, CustomConfig):
        return StageOverrides(noise=noise)
    own = run.config.stages[1].objective
    if isinstance(objective, BYOLConfig):
        own = {**own, "predictor": None}
    return StageOverrides(head=dict(LIGHT_HEAD), objective=own, noise=noise)


def _bytes(views: Sequence[Tensor], dtype: torch.dtype) -> int:
    """Of one image with all of its views."""
    return sum(view[0].numel() for view in views) * dtype.itemsize


def _images(config: Config) -> list[Tensor]:
    """Random images, `[B, S, S, 3]` a view; as large as at the end where the resolution grows."""
    source = torch.Generator().manual_seed(0)
    sizes = [kind.size for kind in view_kinds(config.data, config.num_views)]
    return [torch.randint(0, 256, (IMAGES, size, size, 3), dtype=torch.uint8, generator=source) for size in sizes]
