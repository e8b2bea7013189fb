"""Everything that can be found wrong before a process starts, in seconds and without torch.

The cheap checks come first; the data set, whose files take longest, comes last.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from launch.prepare.data_index import check_data
from launch.prepare.link_kind import check_nccl
from launch.prepare.placement import Placement, count_gpus, place
from launch.prepare.ports import check_port
from launch.prepare.thread_advice import process_count, thread_advice
from pipeline.config import Config
from pipeline.data.sampler import StepPlan
from pipeline.data.sets import datasets
from pipeline.data.sets.decoding import silence_size_warnings
from pipeline.data.sets.unreadable import summarized
from pipeline.errors import ConfigError, UserError
from pipeline.shapes import embedding_width
from pipeline.validation.combinations import check_devices
from pipeline.validation.online import check_labels
from pipeline.validation.topology import key_of
from workers.observing.trackers.starting import check_trackers
from workers.run.files import RunDir


@dataclass(frozen=True)
class RunPlan:
    """What a run will train on, where, and for how many steps.

    Args:
        num_images: images in the training set.
        num_broken: of them, as far as a sample shows, that other images will replace.
        num_classes: of the training set; 0 without labels.
        num_test_images: None if there are none, or their number shows only when they are read.
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
    _: KW_ONLY
    steps_per_epoch: int
    total_steps: int
    notes: tuple[str, ...] = ()


def preflight(
    config: Config,
    splits: datasets.Splits,
    earlier: RunDir | None = None,
    scan: Callable[[datasets.Splits], None] = lambda splits: None,
    sample: bool = False,
    local_processes: int | None = None,
) -> RunPlan:
    """Check the run against this machine and the data.

    Args:
        config: of the run.
        splits: of its data set.
        earlier: the run that it goes on with.
        scan: reads more of the images; called before the data set is checked.
        sample: count the images of a sample that others will replace; `train` names those of all files later.
        local_processes: training processes on a host; all of them if not given.

    Raises:
        ConfigError: a value that does not fit this machine or the data.
        UserError: data that is not there or cannot be read.
    """
    placements = place(config, count_gpus())
    devices = [placement.device for placement in placements]
    check_devices(config, devices)
    check_nccl(config, placements)
    _check_compiler(config, devices)
    if config.metrics.enabled:
        check_port(config.metrics)
    check_trackers(config.trackers)
    if earlier is not None:
        check_data(splits, earlier)
    silence_size_warnings()
    _try_custom_losses(config)
    notes: list[str] = []
    scan(splits)
    broken: list[str] | None = [] if sample else None
    num_images = datasets.preflight(splits, notes, broken)
    if broken:
        notes.append(
            f"{len(broken)} training images cannot be used, and others stand in for them: {summarized(broken)}"
        )
    classes = datasets.count_classes(splits)
    _check_classes(config, classes)
    tests = _test_images(config, splits, notes)
    notes += thread_advice(config, devices, local_processes or process_count(config))
    plan = StepPlan.of(config, num_images)
    return RunPlan(
        num_images,
        len(broken or ()),
        classes,
        tests,
        placements,
        steps_per_epoch=plan.steps_per_epoch,
        total_steps=plan.total_steps,
        notes=tuple(notes),
    )


def _test_images(config: Config, splits: datasets.Splits, notes: list[str]) -> int | None:
    """The number of test images; adds a note if the linear probe at the end of the run cannot be measured on them."""
    try:
        return datasets.preflight_test(splits, notes if config.evaluation.linear_probe else None)
    except UserError as error:
        if config.evaluation.linear_probe:
            notes.append(f"there will be no linear probes: {error}")
        return None


def _try_custom_losses(config: Config) -> None:
    """Try the user's own losses, if there are any: importing torch for it takes seconds."""
    if any(":" in config.stage(index).objective.kind for index in config.learners):
        from pipeline.objectives.custom_losses import try_custom_losses

        try_custom_losses(config)


def _check_classes(config: Config, classes: int) -> None:
    """Raises where labels are used and there are none, or a supervised block has not one output per class."""
    if not config.uses_labels:
        return
    check_labels(config, classes)
    for index in config.learners:
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
    """Raises where torch.compile has no C++ compiler, which it needs for a CPU."""
    for index, device in enumerate(devices, 1):
        compiler = os.environ.get("CXX", "g++")
        if device == "cpu" and config.stage(index).precision.compile and shutil.which(compiler) is None:
            raise UserError(
                f"precision.compile: torch.compile needs the C++ compiler '{compiler}' for a CPU, and it is not "
                "installed. Install it, name another one in CXX, or give precision.compile=false"
            )
