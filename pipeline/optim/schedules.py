"""The learning rate as a pure function of the step.

Because the rate is a function of the step, it is the same in every process, after a restart and after skipped
steps, and there is no scheduler state to save.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi

from pipeline.config import OptimizerConfig

Schedule = Callable[[int], float]
"""A step, counted from 0, to its learning rate."""


@dataclass(frozen=True)
class WarmupConstant:
    """Linear from 0, then constant; the base of the other schedules.

    Args:
        base_lr: the highest learning rate.
        warmup_steps: steps from 0 to `base_lr`; need not be whole.
    """

    base_lr: float
    warmup_steps: float

    def __call__(self, step: int) -> float:
        """Learning rate of `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.base_lr * step / self.warmup_steps
        return self._after_warmup(step)

    def _after_warmup(self, step: int) -> float:
        return self.base_lr


@dataclass(frozen=True)
class WarmupCosine(WarmupConstant):
    """Linear from 0, then half a cosine (released `main.py: adjust_learning_rate`).

    Args:
        base_lr, warmup_steps: as those of `WarmupConstant`.
        total_steps: the cosine ends here, at `final_ratio * base_lr`.
        final_ratio: share of `base_lr` at the end.
    """

    total_steps: int
    final_ratio: float

    def _after_warmup(self, step: int) -> float:
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        share = 0.5 * (1 + cos(pi * progress))
        return self.base_lr * share + self.base_lr * self.final_ratio * (1 - share)


@dataclass(frozen=True)
class WarmupStep(WarmupConstant):
    """Linear from 0, then a factor at every milestone; a milestone inside the warm-up counts from its end.

    Args:
        base_lr, warmup_steps: as those of `WarmupConstant`.
        steps_per_epoch: unit of the milestones, in steps.
        milestones: in epochs, increasing.
        gamma: the factor.
    """

    steps_per_epoch: int
    milestones: tuple[float, ...]
    gamma: float

    def _after_warmup(self, step: int) -> float:
        # Compared in epochs: a quotient of integers rounds like the milestone's decimal number; a product need not.
        epoch = step / self.steps_per_epoch
        return self.base_lr * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


@dataclass(frozen=True)
class Restarted:
    """One schedule after another, each counted from its own first step.

    Args:
        starts: their first steps, the first of them 0.
        schedules: as many.
    """

    starts: tuple[int, ...]
    schedules: tuple[Schedule, ...]

    def __call__(self, step: int) -> float:
        """Learning rate of `step`, counted from 0."""
        leg = bisect_right(self.starts, step) - 1
        return self.schedules[leg](step - self.starts[leg])


def build_schedule(
    config: OptimizerConfig, batch_size: int, epochs: int, steps_per_epoch: int, restarts: Sequence[int] = ()
) -> Schedule:
    """The schedule that `optimizer.schedule` names.

    It applies to the regular parameters; a group's `lr_ratio` multiplies it.

    Args:
        config: its `lr` is for a batch of 256 where `scale_lr` is set.
        batch_size: images of one step.
        epochs: that a cosine spans.
        steps_per_epoch: unit of `warmup_epochs` and `milestones`, in steps.
        restarts: epochs at which it begins anew, and then spans those to the next.
    """
    if restarts:
        legs = list(pairwise((0, *restarts, epochs)))
        return Restarted(
            tuple(start * steps_per_epoch for start, _ in legs),
            tuple(build_schedule(config, batch_size, end - start, steps_per_epoch) for start, end in legs),
        )
    base_lr = config.lr * batch_size / 256 if config.scale_lr else config.lr
    warmup_steps = config.warmup_epochs * steps_per_epoch
    match config.schedule:
        case "cosine":
            return WarmupCosine(base_lr, warmup_steps, epochs * steps_per_epoch, config.final_ratio)
        case "step":
            return WarmupStep(base_lr, warmup_steps, steps_per_epoch, config.milestones, config.gamma)
        case "constant":
            return WarmupConstant(base_lr, warmup_steps)
