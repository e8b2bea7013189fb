"""What every unit of a network, and every end that a stage can have, makes a device do in a step.

Each is counted alone, from the product's own code on tensors that have no memory; units and ends that are alike are
counted once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn, zeros

from launch.partition.counted_ends import EndCalls, count_end
from launch.partition.counted_units import UnitCalls, count_unit
from launch.partition.finest import FinestRun, cut_everywhere
from launch.plan.memories import kind_of_unit
from pipeline.config import Config, OptimizerConfig, StageOverrides
from pipeline.config.kinds import merge
from pipeline.config.model import ModuleConfig
from pipeline.optim import build_optimizer


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What was counted, in steps of `batches` images.

    Args:
        batches: images of a step, two numbers.
        names: of the units, in order.
        units: by the number of the stage whose settings they have, in order: each for every number of images.
        ends: by the number of the stage, from 1, and that of its last unit, from 0.
    """

    batches: tuple[int, int]
    names: tuple[str, ...]
    units: Mapping[int, tuple[list[UnitCalls], ...]]
    ends: Mapping[tuple[int, int], list[EndCalls]]


def count(config: Config, stages: Sequence[int], *, cuda: bool) -> Counted:
    """Count all units, and the ends of these stages.

    A stage of number K has K - 1 stages of at least one unit before it, so it cannot end before unit K.

    Args:
        config: of the run; its own cuts do not matter.
        stages: numbers of stages, counted from 1; a run of fewer stages may have them, with the common settings.
        cuda: see `count_unit`.

    Raises:
        ConfigError: the network cannot be built or cut as the run says.
        RuntimeError: an operation of the user's own network, or loss, has no fake form.
    """
    counter = _Counter(cut_everywhere(config), _two_batches(config.data.batch_size), cuda)
    names = tuple(counter.finest.model.units())
    last = range(len(names))
    return Counted(
        batches=counter.batches,
        names=names,
        units={stage: tuple(counter.unit(stage, index) for index in last) for stage in stages},
        ends={(stage, index): counter.end(stage, index) for stage in stages for index in last if index >= stage - 1},
    )


def _two_batches(batch: int) -> tuple[int, int]:
    """The run's own, and that of one of four replicas, from which follows what does not depend on the images.

    Batch norm needs two images.
    """
    return batch, batch // 4 if batch >= 8 else 2 * batch


class _Counter:
    """Counts each kind of unit and of end once.

    Args:
        finest: of `cut_everywhere`.
        batches: images of a step.
        cuda: see `count_unit`.
    """

    def __init__(self, finest: Config, batches: tuple[int, int], cuda: bool) -> None:
        self.finest, self.batches, self._cuda = finest, batches, cuda
        self._runs: dict[int, FinestRun] = {}
        self._outputs = [self._run(1).shapes(index + 2) for index in range(finest.num_stages)]
        self._units: dict[tuple[Any, ...], list[UnitCalls]] = {}
        self._ends: dict[tuple[Any, ...], list[EndCalls]] = {}

    def unit(self, stage: int, index: int) -> list[UnitCalls]:
        """Unit `index`, from 0, with the settings of a stage."""
        run = self._run(stage)
        key = (*run.of_units, *self._kind(index))
        if key not in self._units:
            self._units[key] = count_unit(run, index + 1, self.batches, self._cuda)
        return self._units[key]

    def end(self, stage: int, index: int) -> list[EndCalls]:
        """The end of a stage after unit `index`, from 0; it depends on the shapes of the output, not on the unit."""
        run = self._run(stage)
        has_head = self.finest.mode != "end_to_end" or index + 1 == self.finest.num_stages
        key = (run.of_ends, *self._outputs[index], has_head)
        if key not in self._ends:
            self._ends[key] = count_end(run, index + 1, self.batches, self._cuda)
        return self._ends[key]

    def _run(self, stage: int) -> FinestRun:
        return self._runs.setdefault(stage, FinestRun(self.finest, stage))

    def _kind(self, index: int) -> tuple[Any, ...]:
        """What units are alike in; those of the user's own network are not known to be."""
        last = index == self.finest.num_stages - 1
        return (
            index if isinstance(self.finest.model, ModuleConfig) else kind_of_unit(self.finest.model.units()[index]),
            last,
        )


def state_factor(config: Config, stage: int) -> float:
    """Bytes of the optimizer's state for one byte of parameters of a stage, counted from 1, on one replica."""
    overrides = config.stages.get(stage, StageOverrides()).optimizer
    layer = nn.Linear(64, 64, bias=False)
    optimizer = build_optimizer(merge(OptimizerConfig, config.optimizer, overrides, "optimizer"), layer)
    layer(zeros(1, 64)).sum().backward()
    optimizer.step()
    state = [value for values in optimizer.state.values() for value in values.values() if value.dim()]
    total: int = sum(tensor.nbytes for tensor in state)
    return total / layer.weight.nbytes
