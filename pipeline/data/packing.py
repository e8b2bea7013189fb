"""Packs views of several sizes into one tensor and back, so that links and slices handle one form.

The batch stays axis 1: slicing a packed tensor along it slices every view, as with views of one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


def pack(views: Sequence[Tensor], packed: bool) -> Tensor:
    """Views `[B, ...]` as one contiguous tensor.

    Args:
        views: of one dtype and device.
        packed: whether the views of the run have several sizes (see `sizes_differ`); those of one step, or after a
            late block, may have one size nevertheless.

    Returns:
        `[V, B, ...]`; packed `[1, B, total]`, each row the flattened views of one image, concatenated.
    """
    if packed:
        return torch.cat([view.flatten(1) for view in views], dim=1).unsqueeze(0)
    return torch.stack(list(views)).contiguous()  # a stack of channels-last views is not contiguous


def unpack(tensor: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """The inverse of `pack`: the views, `[B, ...]` each.

    Args:
        tensor: `[V, B, ...]`, or packed `[1, B, total]`.
        shapes: of one image in every view; only read for a packed tensor.

    Returns:
        Views into the tensor; copies of a packed one, because the network must compute on contiguous tensors.

    Raises:
        ValueError: a packed tensor does not have the size of views of these shapes.
    """
    if not is_packed(tensor):
        return list(tensor.unbind())
    sizes = [prod(shape) for shape in shapes]
    if tensor.shape[0] != 1 or tensor.shape[2] != sum(sizes):
        expected = ", ".join(str(list(shape)) for shape in shapes)
        raise ValueError(f"a packed batch {list(tensor.shape)} does not hold views {expected} of its images")
    parts = torch.split_with_sizes(tensor[0], sizes, dim=1)
    return [part.reshape(len(part), *shape).contiguous() for part, shape in zip(parts, shapes, strict=True)]


def is_packed(tensor: Tensor) -> bool:
    """Whether a tensor is packed: maps, tokens and images have more axes than `[1, B, total]`."""
    return tensor.dim() == 3
