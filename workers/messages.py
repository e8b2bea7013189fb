"""What travels between processes: the header of a batch, and the shape a link is opened for.

Everything here turns into plain JSON bytes and back; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from pipeline.errors import TrainingError

MAX_HEADER_BYTES = 1024 * 1024
"""Room for the labels of a batch of a quarter of a million images."""


@dataclass(frozen=True)
class Header:
    """One step, as the coordinator numbered it; it travels with the batch through every stage.

    Args:
        step: counted from 0.
        epoch: counted from 0.
        noise_levels: standard deviation of the noise at stage 1, 2, ...
        last: no batch follows this one.
        learner: the only stage, from 1, that learns from this batch; None if all do. Stages before it run
            forward only, and the batch does not travel beyond it.
        snapshot: every stage that the batch reaches writes its state after the step.
        leave: the run stops here, to go on another day; only together with `last`.
        labels: of the images, as 32-bit integers, little-endian; empty unless a loss uses them.
    """

    step: int
    epoch: int
    noise_levels: tuple[float, ...]
    last: bool = False
    learner: int | None = None
    snapshot: bool = False
    leave: bool = False
    labels: bytes = b""

    @property
    def label_tensor(self) -> torch.Tensor | None:
        """The labels `[B]`, int64; None if they did not travel."""
        if not self.labels:
            return None
        return torch.from_numpy(np.frombuffer(self.labels, dtype="<i4").astype(np.int64))

    def reaches(self, stage: int) -> bool:
        """Whether the batch travels to `stage`."""
        return self.learner is None or stage <= self.learner

    def to_bytes(self) -> bytes:
        """One line of JSON, UTF-8, then the labels."""
        fields = [self.step, self.epoch, self.noise_levels, self.last, self.learner, self.snapshot, self.leave]
        return json.dumps(fields).encode() + b"\n" + self.labels

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """Raises `TrainingError` if the bytes are not a header."""
        try:
            line, _, labels = data.partition(b"\n")
            step, epoch, levels, last, learner, snapshot, leave = json.loads(line)
            levels = tuple(float(level) for level in levels)
            learner = None if learner is None else int(learner)
            return cls(int(step), int(epoch), levels, bool(last), learner, bool(snapshot), bool(leave), labels)
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
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
