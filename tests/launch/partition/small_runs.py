"""Runs that are measured in tests, and a clock that does not depend on the machine."""

from __future__ import annotations

from itertools import count
from typing import Any

import yaml

from pipeline.config import Config
from pipeline.validation.loading import parse_config
from workers.stage.device_clock import DeviceClock

SMALL = """\
data: {name: fashion_mnist_10k, batch_size: 8, image_size: 16}
model: {backbone: resnet18, width: 8, stem: cifar}
head: {width: 16, projector: [16, 16]}
train: {epochs: 2}
optimizer: {warmup_epochs: 0}
device: cpu
"""


def small_run(**changes: Any) -> Config:
    """A narrow ResNet-18 in batches of eight, with sections merged into it; a key that is None is left out."""
    values = yaml.safe_load(SMALL)
    for section, keys in changes.items():
        merged = {**values.get(section, {}), **keys} if isinstance(keys, dict) else keys
        values[section] = {k: v for k, v in merged.items() if v is not None} if isinstance(merged, dict) else merged
    return parse_config(values)


def ticking() -> DeviceClock:
    """A clock on which a second goes by from one reading to the next."""
    seconds = count()
    return DeviceClock(now=lambda: float(next(seconds)))
