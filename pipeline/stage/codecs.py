"""How activations can be written in fewer bytes on their way to the next stage. All of it loses precision.

A codec rounds each image on its own, so what comes out does not depend on how a batch is divided. What is not finite
stays visible: a block that diverged must not look healthy one stage further. Serial runs take the same round trip
between stages, so they equal the pipelined ones to the bit with a codec too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import isqrt, prod

import torch
from torch import Tensor

from pipeline.errors import ConfigError, allowed_names

FLOATS = {"bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = ("none", *FLOATS, "int8")
LEVELS = 127
"""Of int8 on either side of zero; -128 is not used."""

SCALE_BYTES = torch.float32.itemsize


class Codec(ABC):
    """Writes and reads activations of one shape; encoded and decoded tensors are contiguous.

    Args:
        shape: `[V, B, C, H, W]` or tokens `[V, B, N, D]`, or anything packed, `[1, B, total]`; the largest there are.
            Smaller ones are written as well, as far as `restores` says.
        dtype: of the activations, floating.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape, self.dtype = shape, dtype

    @property
    @abstractmethod
    def wire_shape(self) -> tuple[int, ...]:
        """What a tensor of `shape` becomes; its first two axes are always V and B."""

    @property
    @abstractmethod
    def wire_dtype(self) -> torch.dtype:
        """The dtype on the wire."""

    def restores(self, shape: tuple[int, ...]) -> bool:
        """Whether activations of `shape`, no axis larger than the codec's own, come back in that shape."""
        return True

    @abstractmethod
    def encode(self, activations: Tensor) -> Tensor:
        """`[V, B, ...]` of `dtype` to the wire's shape and dtype."""

    @abstractmethod
    def decode(self, written: Tensor) -> Tensor:
        """What `encode` wrote to `[V, B, ...]` of `dtype`."""


class FloatCodec(Codec):
    """Rounds to a shorter floating-point format; a finite number that is too large for it becomes its largest.

    Args:
        shape, dtype: as `Codec`.
        written_as: bfloat16 or float16.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, written_as: torch.dtype) -> None:
        super().__init__(shape, dtype)
        self._written_as = written_as

    @property
    def wire_shape(self) -> tuple[int, ...]:
        """See `Codec.wire_shape`."""
        return self.shape

    @property
    def wire_dtype(self) -> torch.dtype:
        """See `Codec.wire_dtype`."""
        return self._written_as

    def encode(self, activations: Tensor) -> Tensor:
        """See `Codec.encode`; infinities and NaN stay what they are."""
        written = activations.to(self._written_as)
        too_large = written.isinf() & ~activations.isinf()
        largest = torch.full_like(written, torch.finfo(self._written_as).max).copysign(written)
        return torch.where(too_large, largest, written).contiguous()

    def decode(self, written: Tensor) -> Tensor:
        """See `Codec.decode`."""
        return written.to(self.dtype, copy=True)


class Int8Codec(Codec):
    """Symmetric int8, one scale for each channel of each image and view: its largest magnitude over 127.

    On the wire a map is `[V, B, C, H * W + 4]` and tokens are `[V, B, N + 4, D]`: the last four bytes of every channel
    are its scale, float32 in the machine's byte order. A channel with a number that is not finite becomes NaN.
    """

    @property
    def wire_shape(self) -> tuple[int, ...]:
        """See `Codec.wire_shape`."""
        if self._is_map:
            return (*self.shape[:3], prod(self.shape[3:]) + SCALE_BYTES)
        return (*self.shape[:2], self.shape[2] + SCALE_BYTES, self.shape[3])

    @property
    def wire_dtype(self) -> torch.dtype:
        """See `Codec.wire_dtype`."""
        return torch.int8

    def encode(self, activations: Tensor) -> Tensor:
        """See `Codec.encode`; rounds halves to even."""
        values = activations.float()
        values = values.flatten(3) if self._is_map else values
        largest = values.abs().amax(self._over, keepdim=True)
        scale = largest / LEVELS
        usable = scale.isfinite() & (scale > 0)
        # A scale near the smallest number there is has few digits, so the quotient may exceed 127.
        levels = (values / scale).round().clamp(-LEVELS, LEVELS)
        levels = torch.where(usable, levels, 0).to(torch.int8)
        bytes_of_scale = scale.squeeze(self._over).unsqueeze(-1).view(torch.int8)  # four after the channel's axis
        if not self._is_map:
            bytes_of_scale = bytes_of_scale.transpose(2, 3)
        return torch.cat([levels, bytes_of_scale], dim=self._over)

    def decode(self, written: Tensor) -> Tensor:
        """See `Codec.decode`."""
        length = written.shape[self._over] - SCALE_BYTES
        levels = written.narrow(self._over, 0, length)
        bytes_of_scale = written.narrow(self._over, length, SCALE_BYTES)
        if not self._is_map:
            bytes_of_scale = bytes_of_scale.transpose(2, 3)
        aligned = bytes_of_scale.clone(memory_format=torch.contiguous_format)  # the scales stand at any byte
        scale = aligned.view(torch.float32).squeeze(-1).unsqueeze(self._over)
        # 127 times a 127th of the largest number may be more than that.
        largest = min(torch.finfo(self.dtype).max, torch.finfo(torch.float32).max)
        values = (levels.float() * scale).clamp(-largest, largest).to(self.dtype)
        return values.reshape(*written.shape[:3], *self._sides(length)) if self._is_map else values.contiguous()

    def restores(self, shape: tuple[int, ...]) -> bool:
        """See `Codec.restores`: of a smaller map only the number of pixels is on the wire, so it must be square."""
        return not self._is_map or self._sides(shape[3] * shape[4]) == (shape[3], shape[4])

    def _sides(self, pixels: int) -> tuple[int, int]:
        """Height and width of a map of so many pixels."""
        height, width = self.shape[3:]
        return (height, width) if pixels == height * width else (isqrt(pixels), isqrt(pixels))

    @property
    def _is_map(self) -> bool:
        return len(self.shape) == 5

    @property
    def _over(self) -> int:
        """The axis of the places that share a scale: pixels, or tokens."""
        return 3 if self._is_map else 2


def build_codec(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Codec | None:
    """The codec `name` for activations of `shape` and `dtype`.

    Returns:
        None where they travel as they are: the codec is `none`, or these are images as bytes.

    Raises:
        ConfigError: there is no such codec.
    """
    if name not in NAMES:
        raise ConfigError("link.codec", f"got '{name}'", allowed_names(name, NAMES))
    if name == "none" or not dtype.is_floating_point:
        return None
    return Int8Codec(shape, dtype) if name == "int8" else FloatCodec(shape, dtype, FLOATS[name])


def round_trip(name: str, activations: Tensor) -> Tensor:
    """What the next stage receives of `activations` over a link with codec `name`; the very tensor with `none`."""
    codec = build_codec(name, tuple(activations.shape), activations.dtype)
    return activations if codec is None else codec.decode(codec.encode(activations))
