"""The labels for classifiers: only labelled images, and classes numbered without gaps."""

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
        UserError: no training or test image has a label, or all training images have the same label.
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
        """Number of classes in the training set, C."""
        return len(self._present)

    @cached_property
    def train_rows(self) -> Tensor:
        """Indices of the labelled training images, int64 `[N]`."""
        return (self.train.labels >= 0).nonzero().squeeze(1)

    @cached_property
    def test_rows(self) -> Tensor:
        """Indices of the labelled test images, int64 `[M]`."""
        return (self.test.labels >= 0).nonzero().squeeze(1)

    @cached_property
    def train_labels(self) -> Tensor:
        """Classes of `train_rows`, numbered from 0 without gaps, int64 `[N]`."""
        return self.numbered(self.train.labels[self.train_rows])

    @cached_property
    def test_labels(self) -> Tensor:
        """Classes of `test_rows`, numbered like `train_labels`; C where the training set lacks the class, int64
        `[M]`."""
        return self.numbered(self.test.labels[self.test_rows])

    @cached_property
    def unknown(self) -> int:
        """Number of test images of classes that the training set lacks."""
        return int((self.test_labels == self.classes).sum())

    def numbered(self, labels: Tensor) -> Tensor:
        """The data set's class numbers, mapped to 0 to C - 1 without gaps; C for a class that the training set
        lacks."""
        numbers = torch.searchsorted(self._present, labels)
        has_number = self._present[numbers.clamp(max=len(self._present) - 1)] == labels
        return torch.where(has_number, numbers, len(self._present))

    def train_features(self, place: Place) -> Tensor:
        """Features of `train_rows`, float32 `[N, D]`."""
        return _rows(self.train.features, place, self.train_rows)

    def test_features(self, place: Place) -> Tensor:
        """Features of `test_rows`, float32 `[M, D]`."""
        return _rows(self.test.features, place, self.test_rows)

    @cached_property
    def _present(self) -> Tensor:
        return self.train.labels[self.train_rows].bincount().nonzero().squeeze(1)


def _rows(features: Mapping[Place, Tensor], place: Place, rows: Tensor) -> Tensor:
    """The rows of a feature; not copied if all images are labelled, because a copy may exceed the memory."""
    feature = features[place]
    return feature if len(rows) == len(feature) else feature.index_select(0, rows)
