"""A loss of a user's own whose stages take themselves to be on GPUs where links are concerned: for whole runs."""

from __future__ import annotations

import os
from typing import Any

import torch

from pipeline.objectives import Objective
from tests.workers.links.fake_gpu import FakeGpu
from workers.links import queue


class OnGpus(Objective):
    """The views of an image shall be alike, and images shall not."""

    def __init__(self, width: int) -> None:
        super().__init__()
        queue.gpu_of = lambda device: FakeGpu(f"GPU-of-{os.getpid()}")  # type: ignore[assignment]

    def forward(self, embeddings: Any) -> torch.Tensor:
        one, other = embeddings.views[:2]
        return (one - other).square().mean() - (one - other.flip(0)).square().mean()
