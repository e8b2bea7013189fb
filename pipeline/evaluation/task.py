"""Labels as classifiers want them: images that have one, and classes numbered without gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pipeline.config.places import Place
from pipeline.errors import UserError
from pipeline.evaluation.feature_set import FeatureSet


@dataclass(frozen=True)
class Task:
    """Training and test features with their labels.

    Args:
        train, test: features and labels; images without a label are left out.
        data: name of the data set, for messages.

    Raises:
        UserError: no training or test image has a label, or all training images have the same.
    """

    train: FeatureSet
    test: FeatureSet
    data: str

    def __post_init__(self) -> None:
        for name, rows in (("training", self.train_rows), ("test", self.test_rows)):
            if not len(rows):
                raise UserError(f"no {name} image of {self.data} has a label, and a classifier needs them")
        if self.classes < 2:
            raise UserError(
                f"all training images of {self.data} are of one class, and a classifier needs two. Leave "
                "classifiers out with evaluation.linear=[] evaluation.mlp=false evaluation.knn.k=[]"
            )

    @property
    def classes(self) -> int:
        """Those that the training set has, C."""
        return len(self._present)

    @cached_property
    def train_rows(self) -> Tensor:
        """Training images that have a label, int64 `[N]`."""
        return (self.train.labels >= 0).nonzero().squeeze(1)

    @cached_property
    def test_rows(self) -> Tensor:
        """Test images that have a label, int64 `[M]`."""
        return (self.test.labels >= 0).nonzero().squeeze(1)

    @cached_property
    def train_labels(self) -> Tensor:
        """Of `train_rows`, numbered from 0 without gaps, int64 `[N]`."""
        return self.numbered(self.train.labels[self.train_rows])

    @cached_property
    def test_labels(self) -> Tensor:
        """Of `test_rows`, numbered like `train_labels`; C where the training set lacks the class, int64 `[M]`."""
        return self.numbered(self.test.labels[self.test_rows])

    @cached_property
    def unknown(self) -> int:
        """Test images of classes that the training set lacks."""
        return int((self.test_labels == self.classes).sum())

    def numbered(self, labels: Tensor) -> Tensor:
        """The data set's own classes, from 0, as numbers below C without gaps; C for one the training set lacks."""
        numbers = torch.searchsorted(self._present, labels)
        known = self._present[numbers.clamp(max=len(self._present) - 1)] == labels
        return torch.where(known, numbers, len(self._present))

    def train_features(self, place: Place) -> Tensor:
        """Of `train_rows`, float32 `[N, D]`."""
        return _rows(self.train.features, place, self.train_rows)

    def test_features(self, place: Place) -> Tensor:
        """Of `test_rows`, float32 `[M, D]`."""
        return _rows(self.test.features, place, self.test_rows)

    @cached_property
    def _present(self) -> Tensor:
        return self.train.labels[self.train_rows].bincount().nonzero().squeeze(1)


def _rows(features: Mapping[Place, Tensor], place: Place, rows: Tensor) -> Tensor:
    """Without a copy, which may be larger than the memory, where all images have a label."""
    found = features[place]
    return found if len(rows) == len(found) else found.index_select(0, rows)
