"""A network that trains in milliseconds, its stages and its batches, for tests of the method without processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.data.augment.resolution import view_sizes
from pipeline.data.augment.view_kinds import sizes_differ
from pipeline.data.packing import pack
from pipeline.serial import build_stages, end_to_end_step, serial_step
from pipeline.stage.report import StageReport
from pipeline.stage.stage import Stage
from pipeline.stage.state import stage_tensors
from pipeline.validation.loading import parse_config

STEPS_PER_EPOCH = 4


def small_config(**sections: Any) -> Config:
    """Four blocks of width 8 on 16-pixel images, batches of 8; `sections` are merged over it."""
    values: dict[str, Any] = {
        "train": {"epochs": 3},
        "data": {"batch_size": 8, "image_size": 16},
        "model": {"backbone": "resnet18", "width": 8, "stem": "cifar", "zero_init_residual": False},
        "head": {"width": 16, "projector": [16, 16]},
        "optimizer": {"lr": 8.0, "warmup_epochs": 1},
        "noise": {"kind": "none"},
    }
    for name, section in sections.items():
        own = isinstance(section, dict) and isinstance(values.get(name), dict)
        if own and ("kind" in section or "backbone" in section):
            values[name] = section
        else:
            values[name] = {**values[name], **section} if own else section
    return parse_config(values)


def views(step: int, count: int = 2, batch: int = 8, size: int = 16) -> Tensor:
    """Random images, uint8 `[V, B, S, S, 3]`."""
    source = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (count, batch, 3, size, size), generator=source, dtype=torch.uint8)
    return images.movedim(2, -1).contiguous()


def image_views(config: Config, step: int, batch: int = 8) -> list[Tensor]:
    """Random images of the sizes that the views of a run have at `step`, uint8 `[B, S, S, 3]` each."""
    sizes = view_sizes(config.data, step // STEPS_PER_EPOCH, config.num_views)
    if len(set(sizes)) == 1:
        return list(views(step, len(sizes), batch, sizes[0]))
    return [views(100 * step + number, 1, batch, size)[0] for number, size in enumerate(sizes)]


def batch_of(config: Config, step: int, batch: int = 8) -> Tensor:
    """The same as one tensor, as it travels."""
    return pack(image_views(config, step, batch), sizes_differ(config.data))


def train(
    config: Config, steps: int | Iterable[int], stages: list[Stage] | None = None, level: float = 0.0
) -> list[list[StageReport]]:
    """Train in one process, so many steps or these; the reports of every step."""
    numbers = range(steps) if isinstance(steps, int) else steps
    stages = stages or build_stages(config, STEPS_PER_EPOCH)
    one_step = end_to_end_step if config.mode == "end_to_end" else serial_step
    labels = torch.arange(8) % 4 if config.uses_labels else None
    levels = [level] * len(stages)
    return [list(one_step(stages, batch_of(config, step), step, levels, labels=labels)) for step in numbers]


def state(stage: Stage) -> dict[str, Tensor]:
    """A copy of everything the stage holds."""
    return {name: tensor.clone() for name, tensor in stage_tensors(stage).items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two states are equal to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
