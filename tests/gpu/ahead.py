"""Batches on their way from the host to the device: beside the steps, before each of them, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from tests.gpu.networks import sizes
from tests.gpu.setting import Setting
from workers.feed.ahead import FeedOnDevice
from workers.feed.feed import FeedBatch

WORK = 2048
"""Side of the matrices that stand for a step."""
PRODUCTS = 24


def measure(setting: Setting) -> dict[str, Any]:
    """Milliseconds of a step, by how its batch comes: it is there, it is copied before, or beside the step before."""
    side, count = sizes("resnet50", setting.small)["side"], 3 if setting.small else 30
    device = torch.device(setting.of_tensors)
    images = torch.randint(0, 256, (2, setting.batch, side, side, 3), dtype=torch.uint8)
    there = images.to(device)
    matrix = torch.rand(64 if setting.small else WORK, 64 if setting.small else WORK, device=device)
    ways: dict[str, Callable[[FeedBatch, Callable[[], torch.Tensor]], torch.Tensor]] = {
        "there": lambda batch, arrive: there,
        "before": lambda batch, arrive: batch.views.to(device),
        "beside": lambda batch, arrive: arrive(),
    }
    found = {}
    for name, way in ways.items():
        place = device if name == "beside" else torch.device("cpu")
        batches = FeedOnDevice(fed(images, count + 3), images.nbytes, place)
        found[name] = 1e3 * seconds_of(batches, way, partial(step, matrix), count, device)
        batches.close()
    return {"milliseconds": found, "megabytes": images.nbytes / 1e6}


def fed(images: torch.Tensor, count: int) -> Iterator[FeedBatch]:
    """The same batch again and again."""
    for number in range(count):
        yield FeedBatch(step=number, epoch=0, last=number == count - 1, views=images, samples=np.arange(1))


def step(matrix: torch.Tensor, batch: torch.Tensor) -> float:
    """Reads the batch, computes, and waits for a number, as a step does for its loss."""
    total = batch.sum(dtype=torch.float32)
    for _ in range(PRODUCTS):
        total = total + (matrix @ matrix)[0, 0]
    return float(total)


def seconds_of(
    batches: FeedOnDevice,
    way: Callable[[FeedBatch, Callable[[], torch.Tensor]], torch.Tensor],
    one_step: Callable[[torch.Tensor], float],
    count: int,
    device: torch.device,
) -> float:
    """Of a step, without the first three."""
    began = 0.0
    for number, (batch, arrive) in enumerate(batches):
        if number == 3:
            began = time.perf_counter()
        one_step(way(batch, arrive))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / count
