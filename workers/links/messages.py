"""What links carry: the header of a batch, the specification of its tensor, and both together as a message.

Headers are encoded as JSON; nothing is unpickled.
"""

from __future__ import annotations

import json
import math
from dataclasses import KW_ONLY, dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import TrainingError

MAX_HEADER_BYTES = 4 * 1024 * 1024
"""Suffices for labels and image indices of a batch of a quarter of a million images."""
MAX_COUNT = 2**62
"""More steps than any run has; the sum of two still fits into 64 bits."""
LABEL_BYTES, SAMPLE_BYTES = 4, 8


@dataclass(frozen=True)
class Header:
    """Metadata of one step, written by the coordinator and sent with the batch through every stage.

    Args:
        step: counted from 0.
        epoch: counted from 0.
        noise_levels: standard deviation of the noise at stage 1, 2, ...
        last: no batch follows this one.
        learner: the only stage, from 1, that updates its parameters with this batch; None if all do. Stages before
            it run forward only, and the batch is not sent beyond it.
        snapshot: every stage that the batch reaches writes its state after the step.
        leave: the run stops after this batch, to be resumed later; only together with `last`.
        labels: of the images, as 32-bit integers, little-endian; empty unless a loss uses them.
        samples: indices of the images in the data set, as 64-bit integers, little-endian; empty unless stage 1
            draws random augmentations for each of them.
        data_set: fingerprint of the data set; empty unless stage 1 reads the images itself.
        checksum: of this header without it, and of the tensor (`checked`); empty on a link without.
        origin: name of the host that has computed it.
    """

    step: int
    epoch: int
    noise_levels: tuple[float, ...]
    _: KW_ONLY
    last: bool = False
    learner: int | None = None
    snapshot: bool = False
    leave: bool = False
    labels: bytes = b""
    samples: bytes = b""
    data_set: str = ""
    checksum: str = ""
    origin: str = ""

    @property
    def label_tensor(self) -> torch.Tensor | None:
        """The labels `[B]`, int64; None if they were not sent."""
        if not self.labels:
            return None
        return torch.from_numpy(np.frombuffer(self.labels, dtype="<i4").astype(np.int64))

    @property
    def sample_numbers(self) -> NDArray[np.int64]:
        """Indices of the images of the whole batch, `[B]`; `[0]` if they were not sent."""
        return np.frombuffer(self.samples, dtype="<i8").astype(np.int64)

    def reaches(self, stage: int) -> bool:
        """Whether the batch is sent as far as `stage`."""
        return self.learner is None or stage <= self.learner

    def to_bytes(self) -> bytes:
        """One line of JSON in UTF-8, then the labels, then the indices of the images."""
        fields = [self.step, self.epoch, self.noise_levels, self.last, self.learner, self.snapshot, self.leave]
        line = json.dumps([*fields, self.data_set, self.checksum, self.origin, len(self.labels)])
        return line.encode() + b"\n" + self.labels + self.samples

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """Raises `TrainingError` if the bytes are not a header."""
        try:
            line, _, rest = data.partition(b"\n")
            step, epoch, levels, last, learner, snapshot, leave, data_set, checksum, origin, size = json.loads(line)
            levels = tuple(float(level) for level in levels)
            learner = None if learner is None else int(learner)
            if not 0 <= size <= len(rest) or size % LABEL_BYTES or (len(rest) - size) % SAMPLE_BYTES:
                raise ValueError(f"{len(rest)} bytes after it, said to be {size} of labels, then numbers of images")
            step, epoch = int(step), int(epoch)
            if not (0 <= step < MAX_COUNT and 0 <= epoch < MAX_COUNT and (learner is None or 0 < learner < MAX_COUNT)):
                raise ValueError(f"step {step} of epoch {epoch}, learner {learner}")
            if not all(math.isfinite(level) and level >= 0 for level in levels):
                raise ValueError(f"noise levels {levels}")
            return cls(
                step,
                epoch,
                levels,
                last=bool(last),
                learner=learner,
                snapshot=bool(snapshot),
                leave=bool(leave),
                labels=rest[:size],
                samples=rest[size:],
                data_set=str(data_set),
                checksum=str(checksum),
                origin=str(origin),
            )
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            raise TrainingError(f"a link delivered bytes that are not a header ({error})") from None


@dataclass(frozen=True)
class TensorSpec:
    """The largest tensor that a link carries; compared at the handshake.

    A message may be smaller along any axis, as in the last batch of an epoch, never larger.
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
