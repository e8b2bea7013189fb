"""Linear-probe accuracy of every block, on the trunk and on the expansion feature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.data.augment import evaluation_view
from pipeline.data.datasets import ImageDataset, open_dataset
from pipeline.evaluation.features import extract_features
from pipeline.evaluation.linear import linear_probe_accuracy
from pipeline.stage import Stage


@dataclass(frozen=True)
class BlockScore:
    """Top-1 accuracy, 0 to 1, of a linear classifier on the features of one block."""

    block: int
    trunk: float
    expansion: float


def score_blocks(config: Config, stages: Sequence[Stage], device: torch.device) -> list[BlockScore]:
    """Fit and test the probes of all blocks; the stages are left in evaluation mode on `device`.

    Raises:
        UserError: the data set has no test split, or cannot be read.
    """
    for stage in stages:
        stage.to(device)
    train, test = open_dataset(config.data, "train"), open_dataset(config.data, "test")
    fitted = extract_features(stages, _batches(config, train, device))
    held_out = extract_features(stages, _batches(config, test, device))
    train_labels, test_labels = (torch.from_numpy(np.asarray(data.labels)) for data in (train, test))
    scores = []
    for index, (a, b) in enumerate(zip(fitted, held_out, strict=True), 1):
        trunk = linear_probe_accuracy(a.trunk, train_labels, b.trunk, test_labels)
        expansion = linear_probe_accuracy(a.expansion, train_labels, b.expansion, test_labels)
        scores.append(BlockScore(index, trunk, expansion))
    return scores


def _batches(config: Config, data: ImageDataset, device: torch.device) -> Iterator[Tensor]:
    size, step = config.data.image_size, config.evaluation.batch_size
    for start in range(0, len(data), step):
        views = [evaluation_view(data.image(i), size) for i in range(start, min(start + step, len(data)))]
        yield torch.from_numpy(np.stack(views)).to(device)
