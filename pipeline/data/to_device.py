"""Small tensors of the host, such as labels, on their way to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def sent_to(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`, in the order of its current stream; the host does not wait for a GPU.

    From pageable memory it would: the copy would begin when all that was launched has ended. The pinned memory is
    taken from PyTorch's cache of it, to which it returns when the GPU has read it. On a CPU it is the tensor itself.
    """
    return tensor.to(device) if device.type != "cuda" else tensor.pin_memory().to(device, non_blocking=True)
