"""Linear-probe accuracy of every block, on the trunk and on the expansion feature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.data.datasets import ImageDataset, Split, open_labelled
from pipeline.data.evaluation_view import evaluation_view
from pipeline.evaluation.features import BlockFeatures, extract_features
from pipeline.evaluation.linear import linear_probe_accuracy
from pipeline.stage import Stage


@dataclass(frozen=True)
class BlockScore:
    """Top-1 accuracy, 0 to 1, of a linear classifier on the features of one block."""

    block: int
    trunk: float
    expansion: float | None
    """None for a block without a head: end to end, only the last has one."""


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of every block, in order, and the labels of the same images, `[N]`."""

    blocks: list[BlockFeatures]
    labels: Tensor


def collect_features(config: Config, stages: Sequence[Stage], split: Split, device: torch.device) -> LabelledFeatures:
    """All blocks' features of one split in one pass; the stages are left in evaluation mode on `device`.

    Raises:
        UserError: the data set has no such split or no labels, or cannot be read.
    """
    data = open_labelled(config.data, split)
    for stage in stages:
        stage.to(device)
    features = extract_features(stages, _batches(config, data, device))
    return LabelledFeatures(features, torch.from_numpy(np.asarray(data.labels)))


def score_blocks(train: LabelledFeatures, test: LabelledFeatures) -> list[BlockScore]:
    """Fit a probe on each feature of each block, and test it."""
    scores = []
    for index, (fitted, held_out) in enumerate(zip(train.blocks, test.blocks, strict=True), 1):
        trunk = linear_probe_accuracy(fitted.trunk, train.labels, held_out.trunk, test.labels)
        expansion = None
        if fitted.expansion is not None and held_out.expansion is not None:
            expansion = linear_probe_accuracy(fitted.expansion, train.labels, held_out.expansion, test.labels)
        scores.append(BlockScore(index, trunk, expansion))
    return scores


def _batches(config: Config, data: ImageDataset, device: torch.device) -> Iterator[Tensor]:
    size, step = config.data.image_size, config.evaluation.batch_size
    for start in range(0, len(data), step):
        images = (data.image(i) for i in range(start, min(start + step, len(data))))
        views = [evaluation_view(image, size, config.data.eval_interpolation) for image in images]
        yield torch.from_numpy(np.stack(views)).to(device)
