"""One operation on many tensors: a few kernels on a GPU, where a loop in Python launches one for each tensor.

torch's `_foreach` operations are private. Where a release lacks one, `one_by_one` takes its place. On the CPU both run
the same kernels, tensor by tensor: the bits are equal in float32 and float64. In half precision, which no parameter of
a run has, torch's rounds a scalar factor before it multiplies, so the last bit may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

PIECE_BYTES = 64 << 20
"""Of the tensors that are worked on at once, and so of what is computed of them and kept meanwhile."""
CACHED_BYTES = 256 << 10
"""The same on the CPU, which gains nothing from long lists, and loses where they leave its caches in between."""


def one_by_one(operation: str, tensors: Iterable[Tensor], *others: Any, **named: Any) -> list[Tensor]:
    """`operation` of each tensor, in a loop.

    Args:
        operation: a method of tensors, or `norm`, the 2-norm of all elements.
        tensors: its first arguments.
        others: its further arguments: a list or tuple has one for each tensor, anything else goes to all.
        named: go to all.
    """
    function: Callable[..., Tensor] = torch.linalg.vector_norm if operation == "norm" else getattr(Tensor, operation)
    columns = [other if isinstance(other, list | tuple) else repeat(other) for other in others]
    return [function(*row, **named) for row in zip(tensors, *columns, strict=False)]


def _foreach(operation: str) -> Callable[..., Any]:
    return getattr(torch, f"_foreach_{operation}", None) or partial(one_by_one, operation)


add, add_, sub_, mul_, norm = (_foreach(operation) for operation in ("add", "add_", "sub_", "mul_", "norm"))


def pieces(tensors: Iterable[Tensor], most: int | None = None) -> Iterator[list[Tensor]]:
    """The tensors in lists of one device and dtype, each of at most `most` bytes or a single larger tensor."""
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        alike.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    for (device, _), kind in alike.items():
        limit = (CACHED_BYTES if device.type == "cpu" else PIECE_BYTES) if most is None else most
        piece: list[Tensor] = []
        size = 0
        for tensor in kind:
            if piece and size + tensor.nbytes > limit:
                yield piece
                piece, size = [], 0
            piece.append(tensor)
            size += tensor.nbytes
        yield piece
