"""Copies of a stage's state in host memory, which a GPU makes while the host goes on.

A copy into pinned memory is launched behind the step and before the next one, so it has the state between the two
although nobody waits for it; whoever writes it waits for its end. The pinned memory goes back to PyTorch's cache of
it when the copies are written, and the next snapshot takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def host_copies(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Callable[[], None]]:
    """Copies that nothing changes, and a function that waits until all of them are there; call it in any thread.

    Args:
        tensors: on any device; those on the host are copied at once.
    """
    copies = {name: _copy(tensor.detach()) for name, tensor in tensors.items()}
    ends = [_LastCopy(device) for device in {t.device for t in tensors.values() if t.device.type == "cuda"}]

    def wait() -> None:
        for end in ends:
            end.wait()

    return copies, wait


def _copy(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cuda":
        return tensor.to("cpu", copy=True)
    pinned = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)


class _LastCopy:
    """The end of what the calling thread has launched on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        # A thread without a device would make a context on the first one, which costs its memory.
        with torch.cuda.device(self._device):
            self._event.synchronize()
