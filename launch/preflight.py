"""Everything that can be found wrong before a process starts, in seconds and without torch.

The cheap questions come first; the data set, which may take a while to look through, comes last.
"""

from __future__ import annotations

from dataclasses import dataclass

from launch.placement import Placement, count_gpus, place
from launch.ports import check_port
from launch.run_dir import check_run_dir
from pipeline.config import Config
from pipeline.data import datasets
from pipeline.data.sampler import StepPlan


@dataclass(frozen=True)
class Report:
    """What a run will be.

    Args:
        num_images: images in the training set.
        placements: one per stage, in order.
        steps_per_epoch: at least 1.
        total_steps: at least 1.
    """

    num_images: int
    placements: tuple[Placement, ...]
    steps_per_epoch: int
    total_steps: int


def preflight(config: Config) -> Report:
    """Check the run against this machine and the data.

    Raises:
        ConfigError: a value that does not fit this machine or the data.
        UserError: data that is not there or cannot be read.
    """
    check_run_dir(config)
    placements = tuple(place(config, count_gpus()))
    if config.metrics.enabled:
        check_port(config.metrics)
    num_images = datasets.preflight(config.data)
    data, train = config.data, config.train
    plan = StepPlan(num_images, data.batch_size, train.epochs, data.drop_last, config.seed, train.max_steps)
    return Report(num_images, placements, plan.steps_per_epoch, plan.total_steps)
