"""What travels between processes: the header of a batch, and the shape a link is opened for.

Everything here turns into plain JSON bytes and back; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod

import torch

from pipeline.errors import TrainingError

MAX_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Header:
    """One step, as the coordinator numbered it; it travels with the batch through every stage.

    Args:
        step: counted from 0.
        epoch: counted from 0.
        noise_levels: relative standard deviation of the noise at stage 1, 2, ...
        last: no batch follows this one.
    """

    step: int
    epoch: int
    noise_levels: tuple[float, ...]
    last: bool = False

    def to_bytes(self) -> bytes:
        """JSON, UTF-8."""
        return json.dumps([self.step, self.epoch, self.noise_levels, self.last]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """Raises `TrainingError` if the bytes are not a header."""
        try:
            step, epoch, levels, last = json.loads(data)
            return cls(int(step), int(epoch), tuple(float(level) for level in levels), bool(last))
        except (ValueError, TypeError) as error:
            raise TrainingError(f"a link delivered bytes that are not a header ({error})") from None


@dataclass(frozen=True)
class TensorSpec:
    """The largest tensor a link carries; agreed on by both ends at the handshake.

    A message may be smaller along any axis (the last batch of an epoch), never larger.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the largest message."""
        return prod(self.shape) * self.dtype.itemsize

    def admits(self, shape: tuple[int, ...], dtype: object) -> bool:
        """Whether a tensor of this shape and dtype fits."""
        return (
            dtype == self.dtype
            and len(shape) == len(self.shape)
            and all(0 <= size <= limit for size, limit in zip(shape, self.shape, strict=True))
        )

    def __str__(self) -> str:
        return f"{list(self.shape)} {str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True)
class Message:
    """A header and the activations of both views, `[V, B, C, H, W]`."""

    header: Header
    tensor: torch.Tensor
