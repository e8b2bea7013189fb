"""Supervised training of a block: cross-entropy of the head's outputs with the labels.

This is the baseline for the self-supervised losses; only the loss differs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import objectives as settings
from pipeline.objectives.base import Embeddings, Objective


def supervised_loss(views: Sequence[Tensor], labels: Tensor, smoothing: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean of all views' cross-entropies with the labels, which the views share.

    Args:
        views: logits of every view, `[N, D]`, D classes.
        labels: `[N]` int64, 0 to D - 1.
        smoothing: share of the target that is spread evenly over all D classes (Szegedy et al. 2016, section 7).

    Returns:
        The loss, and `accuracy`: the mean over the views.
    """
    logits, every = torch.cat(tuple(views)), labels.repeat(len(views))
    loss = F.cross_entropy(logits, every, label_smoothing=smoothing)
    correct = logits.detach().argmax(dim=1) == every
    return loss, {"accuracy": correct.to(logits.dtype).mean()}


class Supervised(Objective):
    """The loss with its settings."""

    uses_labels = True

    def __init__(self, config: settings.SupervisedConfig, width: int, seed: int, stage: int) -> None:
        super().__init__()
        self.label_smoothing = config.label_smoothing

    def forward(self, embeddings: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings `[N, D]` of the views, read as logits, and the labels to the loss and its terms.

        Raises:
            ValueError: the labels are missing.
        """
        if embeddings.labels is None:
            raise ValueError("the supervised objective needs labels, and was given none")
        return supervised_loss(embeddings.views, embeddings.labels, self.label_smoothing)
