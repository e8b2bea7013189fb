"""Everything that can be found wrong before a process starts, in seconds and without torch.

The cheap questions come first; the data set, which may take a while to look through, comes last.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launch.prepare.data_index import check_data
from launch.prepare.placement import Placement, count_gpus, place
from launch.prepare.ports import check_port
from launch.prepare.resume import check_run, existing_run
from launch.prepare.run_dir import check_run_dir
from launch.prepare.run_lock import check_not_running
from pipeline.config import Config
from pipeline.data.sampler import StepPlan
from pipeline.data.sets import datasets
from pipeline.data.sets.decoding import leave_warnings_to_us
from pipeline.data.sets.unreadable import named
from pipeline.errors import ConfigError, UserError
from pipeline.shapes import embedding_width
from pipeline.validation.combinations import check_devices
from pipeline.validation.online import check_labels
from pipeline.validation.topology import key_of
from workers.observing.trackers.starting import check_trackers
from workers.run.files import RunDir


@dataclass(frozen=True)
class Report:
    """What a run will be.

    Args:
        num_images: images in the training set.
        num_broken: of them, as far as a sample tells, that others will stand in for.
        num_classes: of the training set; 0 without labels.
        num_test_images: None if there are none, or nobody knows before they are read.
        placements: one per stage, in order.
        steps_per_epoch: at least 1.
        total_steps: at least 1.
        notes: sentences for the user.
    """

    num_images: int
    num_broken: int
    num_classes: int
    num_test_images: int | None
    placements: tuple[Placement, ...]
    steps_per_epoch: int
    total_steps: int
    notes: tuple[str, ...] = ()


def preflight(config: Config, claimed: Path | None = None, scan: Callable[[], None] = lambda: None) -> Report:
    """Check the run against this machine and the data.

    Args:
        config: of the run.
        claimed: its directory, if this process has it; `onward check` has not, and only looks.
        scan: looks at more of the images; called when everything else is in order.

    Raises:
        ConfigError: a value that does not fit this machine or the data.
        UserError: data that is not there or cannot be read.
    """
    if claimed is None:
        check_run_dir(config)
    path = existing_run(config, claimed)
    if path is not None:
        check_run(config, path)
        if claimed is None:
            check_not_running(path)
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
    _try_own_losses(config)
    notes: list[str] = []
    scan()
    broken: list[str] | None = [] if claimed is None else None  # what `train` finds it says itself, of all files
    num_images = datasets.preflight(config.data, notes, broken)
    if broken:
        notes.append(f"{len(broken)} training images cannot be used, and others stand in for them: {named(broken)}")
    classes = datasets.count_classes(config.data)
    _check_classes(config, classes)
    tests = _test_images(config, notes)
    notes += _threads_of_one_process(config, devices)
    plan = StepPlan.of(config, num_images)
    steps = plan.steps_per_epoch, plan.total_steps
    return Report(num_images, len(broken or ()), classes, tests, placements, *steps, tuple(notes))


def _threads_of_one_process(config: Config, devices: list[str]) -> list[str]:
    """A baseline on one core looks slower than it is beside a pipeline that has one for each of its stages."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = "threads" in config.model_fields_set
    if config.mode != "end_to_end" or told or config.num_stages == 1 or cores == 1 or set(devices) != {"cpu"}:
        return []
    return [
        f"mode=end_to_end trains all {config.num_stages} blocks in one process on one thread, where a pipeline has a "
        f"process for each: before you compare how fast they are, give threads={cores}, as many as there are cores"
    ]


def _test_images(config: Config, notes: list[str]) -> int | None:
    """How many there are; a note if the linear probe at the end of the run could not be measured on them."""
    try:
        return datasets.preflight_test(config.data, notes if config.evaluation.linear_probe else None)
    except UserError as error:
        if config.evaluation.linear_probe:
            notes.append(f"there will be no linear probes: {error}")
        return None


def _try_own_losses(config: Config) -> None:
    """Only where there are any: it takes the seconds that torch needs."""
    if any(":" in config.stage(index).objective.kind for index in range(1, config.num_stages + 1)):
        from pipeline.objectives.own_losses import try_own_losses

        try_own_losses(config)


def _check_classes(config: Config, classes: int) -> None:
    """Who uses labels must find some, and a supervised block must end with as many outputs as there are classes."""
    if not config.uses_labels:
        return
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
