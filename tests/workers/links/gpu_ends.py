"""Both ends of a queue in threads of one process, on GPUs of shared memory or on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch

from tests.waiting import LIMIT
from tests.workers.links.fake_gpu import FakeGpu
from workers.links import queue
from workers.links.base import LinkAddress
from workers.links.messages import Header, TensorSpec
from workers.links.queue import QueueReceiver, QueueSender

SPEC = TensorSpec((4, 3), torch.float32)
CUDA = (torch.device("cuda", 0), torch.device("cuda", 1))


@contextmanager
def gpu_ends(
    folder: Path, sender: FakeGpu | None, receiver: FakeGpu | None, *, spec: TensorSpec = SPEC, depth: int = 2,
    device_to_device: bool = True,
) -> Iterator[tuple[QueueSender, QueueReceiver]]:  # fmt: skip
    """The open ends; None stands for a CPU."""
    address = LinkAddress("link1", "stage 1", "stage 2", path=str(folder / "link1"), key=b"key", depth=depth)
    gpus = {device: gpu for device, gpu in zip(CUDA, (sender, receiver), strict=True) if gpu is not None}
    devices = [device if device in gpus else queue.CPU for device in CUDA]
    arguments = (address, spec, LIMIT, "none")
    with patch.object(queue, "gpu_of", gpus.get), ThreadPoolExecutor(1) as threads:
        opened = threads.submit(queue.open_queue_receiver, *arguments, devices[1], device_to_device)
        out = queue.open_queue_sender(*arguments, devices[0], device_to_device)
        into = opened.result(LIMIT)
    try:
        yield out, into
    finally:
        out.close()
        into.close()


def header(step: int) -> Header:
    return Header(step, 0, ())


def batch(step: int, spec: TensorSpec = SPEC) -> torch.Tensor:
    return torch.full(spec.shape, float(step), dtype=spec.dtype)
