"""The input of the measures: the features of a set of images at every place, and the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pipeline.config.places import Place


@dataclass(frozen=True)
class FeatureSet:
    """Features of the same `N` images at several places.

    Args:
        features: float32 `[N, D]` each, on the CPU; may be mapped from a file, so do not write to them.
        labels: int64 `[N]`; -1 for unlabelled images.
    """

    features: Mapping[Place, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)
