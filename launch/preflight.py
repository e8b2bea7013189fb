"""Everything that can be found wrong before a process starts, in seconds and without torch.

The cheap questions come first; the data set, which may take a while to look through, comes last.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

from launch.data_index import check_data
from launch.placement import Placement, count_gpus, place
from launch.ports import check_port
from launch.resume import check_run, existing_run
from launch.run_dir import check_run_dir
from pipeline.config import Config
from pipeline.config_checks import check_devices, embedding_width, key_of
from pipeline.config_online import check_labels
from pipeline.data import datasets
from pipeline.data.decoding import leave_warnings_to_us
from pipeline.data.sampler import StepPlan
from pipeline.errors import ConfigError, UserError
from workers.observing.trackers.starting import check_trackers
from workers.run_files import RunDir


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
    path = existing_run(config)
    if path is not None:
        check_run(config, path)
    placements = tuple(place(config, count_gpus()))
    devices = [placement.device for placement in placements]
    check_devices(config, devices)
    _check_compiler(config, devices)
    if config.metrics.enabled:
        check_port(config.metrics)
    check_trackers(config.trackers)
    if path is not None:
        check_data(config, RunDir(path))
    leave_warnings_to_us()
    num_images = datasets.preflight(config.data)
    _check_classes(config)
    plan = StepPlan.of(config, num_images)
    return Report(num_images, placements, plan.steps_per_epoch, plan.total_steps)


def _check_classes(config: Config) -> None:
    """Who uses labels must find some, and a supervised block must end with as many outputs as there are classes."""
    if not config.uses_labels:
        return
    classes = datasets.count_classes(config.data)
    check_labels(config, classes)
    for index in range(1, config.num_stages + 1):
        stage = config.stage(index)
        outputs = embedding_width(config, stage)
        if stage.objective.kind == "supervised" and not classes:
            raise ConfigError(
                key_of(config, stage, "objective", "kind"),
                f"supervised needs labels at stage {index}, and the images of {config.data.name} have none",
                "Give an objective that compares views, or images in class folders",
            )
        if stage.objective.kind == "supervised" and outputs != classes:
            raise ConfigError(
                key_of(config, stage, "head", "projector"),
                f"gives {outputs} outputs at stage {index}, and {config.data.name} has {classes} classes to tell apart",
                f"Give [{classes}], or more layers that end with {classes}",
            )


def _check_compiler(config: Config, devices: list[str]) -> None:
    """torch.compile writes C++ for a CPU."""
    for index, device in enumerate(devices, 1):
        compiler = os.environ.get("CXX", "g++")
        if device == "cpu" and config.stage(index).precision.compile and shutil.which(compiler) is None:
            raise UserError(
                f"precision.compile: torch.compile needs the C++ compiler '{compiler}' for a CPU, and it is not "
                "installed. Install it, name another one in CXX, or give precision.compile=false"
            )
