"""All stages in one process: the algorithm in its plainest form, and the reference for the pipeline."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pipeline.stage import Stage, StageReport


def serial_step(stages: Sequence[Stage], views: Tensor, step: int, noise_levels: Sequence[float]) -> list[StageReport]:
    """One step of every stage: each reads what the one before computed, before that one's update.

    Args:
        stages: in order.
        views: the input of the first stage, `[V, B, C, H, W]`.
        step: counted from 0.
        noise_levels: one per stage.
    """
    reports = []
    activations = views
    for stage, level in zip(stages, noise_levels, strict=True):
        activations = stage(activations, step, level)
        reports.append(stage.update(step))
    return reports
