"""What the measures beside the training (`evaluation.online`) hold and compute, on tensors without memory.

They are at work from the first step on as they will be once their banks are full. The label-free measures of quality
are counted by the same rule as those of `onward evaluate`, since their values decide what they compute.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from launch.plan.data_facts import facts_without_plan
from launch.plan.live_bytes import LiveBytes
from pipeline.config import Config
from pipeline.measures.feature_bank import Bank
from pipeline.measures.online import Measure, OnlineMeasures
from pipeline.stage.fake import make_fake
from pipeline.stage.stage import Stage
from workers.evaluating.quality import quality_bytes

CLASSES = 1000
"""Of a data set that is not at hand."""


class FakeOnlineMeasures(OnlineMeasures):
    """The measures of one stage with full banks, whose features are finite.

    Args:
        live: counts.
        fake: makes their tensors fake.
        config: of the run.
        stage: to be measured.
        classes: of the training set.
        steps_per_epoch: of the fake run.
    """

    def __init__(
        self, live: LiveBytes, fake: FakeTensorMode, config: Config, stage: Stage, *, classes: int, steps_per_epoch: int
    ) -> None:
        self._live, self._fake, self._index = live, fake, stage.index
        super().__init__(config, stage.index, classes, steps_per_epoch, compute=stage.compute, team=stage.team)
        if self.probe is not None:
            make_fake(self.probe, fake)
            self.probe.optimizer.param_groups[0]["params"] = list(self.probe.parameters())
        for bank in self._banks():
            bank._written = bank.capacity

    def measure(self, step: int, labels: Tensor | None) -> dict[Measure, float]:
        """As `OnlineMeasures.measure`, in the epoch in which the bank was filled."""
        self._epoch, self._live.moment = step // self._steps_per_epoch, f"evaluation.online of stage {self._index}"
        return super().measure(step, labels)

    def held(self) -> list[Tensor]:
        """What is there between two steps; before the first, without gradients and momenta of the probe."""
        banks = [tensor for bank in self._banks() for tensor in (bank._features, bank._labels)]
        if self.probe is None:
            return banks
        weights = list(self.probe.parameters())
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        momenta = [state["momentum_buffer"] for state in self.probe.optimizer.state.values()]
        return [*banks, *weights, *self.probe.buffers(), *gradients, *momenta]

    def _make_bank(self, capacity: int, shape: tuple[int, ...], device: torch.device) -> Bank:
        with self._fake:
            return super()._make_bank(capacity, shape, device)

    def _banks(self) -> list[Bank]:
        return [bank for bank in (self._bank, self._recent) if bank is not None]

    def _are_finite(self, features: Tensor) -> bool:
        return True

    def _quality(self, features: Tensor, step: int) -> dict[Measure, float]:
        if self._recent is not None:
            self._recent.add(features)
            rows, views, width = self._recent.features.shape
            self._live.reach(quality_bytes([rows * views * width], rows * views))
        return {}


def measure_online(
    config: Config, stages: Sequence[Stage], live: LiveBytes, fake: FakeTensorMode, steps_per_epoch: int
) -> None:
    """Give every stage the measures that `evaluation.online` asks for, as the loop that drives it does."""
    online = config.evaluation.online
    if online.linear or online.knn_bank or online.quality_every:
        classes = (facts_without_plan(config).classes if online.linear else None) or CLASSES
        for stage in (stage for stage in stages if not stage.frozen):
            stage.online = measures = FakeOnlineMeasures(
                live, fake, config, stage, classes=classes, steps_per_epoch=steps_per_epoch
            )
            live.adopt(measures.held())


def online_bytes(stage: Stage) -> int:
    """What they hold between two steps."""
    return sum(tensor.nbytes for tensor in stage.online.held()) if isinstance(stage.online, FakeOnlineMeasures) else 0
