"""All stages in one process: the algorithm in its plainest form, and the reference for the pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from pipeline.stage import Stage, StageReport


def serial_step(
    stages: Sequence[Stage], views: Tensor, step: int, noise_levels: Sequence[float]
) -> Iterator[StageReport]:
    """One step of every stage: each reads what the one before computed, before that one's update.

    A generator: it yields each stage's report when that stage has finished the step.

    Args:
        stages: in order.
        views: the input of the first stage, `[V, B, C, H, W]`.
        step: counted from 0.
        noise_levels: one per stage.
    """
    activations = views
    for stage, level in zip(stages, noise_levels, strict=True):
        activations = stage(activations, step, level)
        yield stage.update(step)
