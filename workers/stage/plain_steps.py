"""Floating-point operations of stages that are compiled: of the same steps as they are written.

A compiled stage cannot be watched: under a dispatch mode it would run as it is written, which rounds in another way. So
the same step is made of the same stage without `precision.compile`, on tensors that have sizes and no memory.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from pipeline.config import Config
from pipeline.replicas import SOLO
from pipeline.serial import step_function
from pipeline.stage.fake import FakeReplicaGroup, StageWithoutMemory, without_engines
from pipeline.stage.phases import Phases
from workers.stage.flops import Counting

CPU = torch.device("cpu")
_log = logging.getLogger(__name__)


class PlainSteps:
    """Counts the steps of a run's stages.

    Args:
        config: of the run.
        steps_per_epoch: of its training set.
    """

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        self._config, self._steps_per_epoch = without_engines(config), steps_per_epoch
        self._phases = Phases.of(config, steps_per_epoch)
        self._of_all: dict[tuple[torch.Size, int | None], list[int]] = {}

    def of_stage(self, index: int, shape: torch.Size, dtype: torch.dtype, step: int, *, learns: bool) -> int:
        """Operations of one step of stage `index`; 0 where an operation of the user's network has no fake form.

        Args:
            index: counted from 1.
            shape, dtype: of its input.
            step: of the run.
            learns: whether the stage is updated.
        """
        return self._counted([index], shape, dtype, step, learns)[0]

    def of_all(self, shape: torch.Size, step: int) -> list[int]:
        """Operations of one step of each stage that it reaches, all in one process; `shape` is that of the images."""
        kind = shape, self._phases.learner(step)
        if kind not in self._of_all:
            self._of_all[kind] = self._counted(range(1, self._config.num_stages + 1), shape, torch.uint8, step)
        return self._of_all[kind]

    def _counted(
        self, indices: Sequence[int], shape: torch.Size, dtype: torch.dtype, step: int, learns: bool = True
    ) -> list[int]:
        try:
            with torch.random.fork_rng(devices=[]):
                return self._steps(indices, shape, dtype, step, learns)
        except Exception as error:  # what only measures must not end a run
            _log.warning("the operations of a compiled stage are not counted (%s)", error)
            return [0] * len(indices)

    def _steps(
        self, indices: Sequence[int], shape: torch.Size, dtype: torch.dtype, step: int, learns: bool
    ) -> list[int]:
        fake, counting, found = FakeTensorMode(allow_non_fake_inputs=True), _CountingFakes(), list[int]()
        stages = self._stages(fake, indices)
        with fake, counting:
            batch = torch.empty(shape, dtype=dtype)
            rows = shape[1] * stages[0].team.size
            labels = torch.zeros(rows, dtype=torch.int64) if self._config.uses_labels else None
            if len(indices) == 1:
                forward = stages[0] if learns else stages[0].relay
                forward(batch, step, 0.0)
                if learns:
                    stages[0].update(step, labels)
                return [counting.flops]
            reports = step_function(self._config, stages, CPU)(stages, batch, step, [0.0] * len(stages), labels=labels)
            for _ in reports:
                found.append(counting.flops - sum(found))
        return found

    def _stages(self, fake: FakeTensorMode, indices: Sequence[int]) -> list[StageWithoutMemory]:
        size = self._config.replicas_of(indices[0]) if len(indices) == 1 else 1
        team = FakeReplicaGroup(0, size) if size > 1 else SOLO
        stages = [StageWithoutMemory(fake, self._config, i, self._steps_per_epoch, team=team) for i in indices]
        if len(stages) > 1 and self._config.mode == "end_to_end" and stages[-1].target is not None:
            with warnings.catch_warnings():  # copying a fake tensor asks for its address
                warnings.simplefilter("ignore")
                stages[-1].follow_with_target(nn.Sequential(*(stage.block for stage in stages)))
            stages[-1].remember_buffers()
        return stages


class _CountingFakes(Counting):  # type: ignore[no-untyped-call]
    """Counts, and answers what a step reads: numbers that are finite, and no overflow."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0 if args[0].is_floating_point() else args[0].dtype != torch.bool
        return super().__torch_dispatch__(func, types, args, kwargs)
