"""A ring buffer of the latest features of a block, for measures that need more than one batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Bank:
    """The latest `capacity` samples; the oldest are overwritten first, and memory is allocated once.

    Args:
        capacity: number of samples, 1 or more.
        shape: of the features of one sample, such as `(D,)` or `(V, D)`.
        device, dtype: of the features.
    """

    def __init__(self, capacity: int, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> None:
        self.capacity = capacity
        self._features = torch.zeros((capacity, *shape), device=device, dtype=dtype)
        self._labels = torch.full((capacity,), -1, device=device)
        self._written = 0

    def __len__(self) -> int:
        return min(self._written, self.capacity)

    @property
    def full(self) -> bool:
        """Whether it holds `capacity` samples."""
        return len(self) == self.capacity

    @property
    def features(self) -> Tensor:
        """`[len, *shape]`, a view, in no particular order; valid until the next `add`."""
        return self._features[: len(self)]

    @property
    def labels(self) -> Tensor:
        """Classes of the same samples, `[len]` int64, -1 for unlabelled ones; a view."""
        return self._labels[: len(self)]

    def add(self, features: Tensor, labels: Tensor | None = None) -> None:
        """Add features `[B, *shape]` and their classes `[B]`; of more than `capacity`, only the last."""
        features = features[-self.capacity :]
        labels = torch.full((len(features),), -1) if labels is None else labels[-self.capacity :]
        at = self._written % self.capacity
        first = min(len(features), self.capacity - at)
        for store, values in ((self._features, features), (self._labels, labels)):
            store[at : at + first] = values[:first]
            store[: len(features) - first] = values[first:]
        self._written += len(features)

    def clear(self) -> None:
        """Remove all samples."""
        self._written = 0

    def tensors(self) -> dict[str, Tensor]:
        """The state: the samples, not copied, and the number of samples ever added, `[1]`."""
        return {"features": self.features, "labels": self.labels, "written": torch.tensor([self._written])}

    def load(self, tensors: Mapping[str, Tensor]) -> bool:
        """Load the result of `tensors`; returns False and changes nothing if it is of a bank of another size."""
        written = int(tensors["written"]) if "written" in tensors else -1
        held = min(written, self.capacity)
        fits = written >= 0 and tensors["features"].shape == (held, *self._features.shape[1:])
        if fits:
            self._written = written
            self.features.copy_(tensors["features"])
            self.labels.copy_(tensors["labels"])
        return fits
