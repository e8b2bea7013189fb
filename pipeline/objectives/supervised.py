"""Supervised training of a block: cross-entropy of the head's outputs, taken as classes, with the labels.

The baseline that the self-supervised losses are compared with: everything but the loss stays as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import objectives as settings
from pipeline.objectives.base import Embeddings, Objective


def supervised_loss(z1: Tensor, z2: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean of the two views' cross-entropies with the labels, which the views share.

    Args:
        z1, z2: logits of the two views, `[N, D]`, D classes.
        labels: `[N]` int64, 0 to D - 1.
        smoothing: share of the target that is spread evenly over all D classes (Szegedy et al. 2016, section 7).

    Returns:
        The loss, and `accuracy`: the mean over both views.
    """
    logits, both = torch.cat((z1, z2)), labels.repeat(2)
    loss = F.cross_entropy(logits, both, label_smoothing=smoothing)
    correct = logits.detach().argmax(dim=1) == both
    return loss, {"accuracy": correct.to(logits.dtype).mean()}


class Supervised(Objective):
    """The loss with its settings bound."""

    uses_labels = True

    def __init__(self, config: settings.Supervised, width: int, seed: int, stage: int) -> None:
        super().__init__()
        self.label_smoothing = config.label_smoothing

    def forward(self, embeddings: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings `[N, D]` of the two views, read as logits, and the labels to the loss and its terms.

        Raises:
            ValueError: the labels are missing.
        """
        if embeddings.labels is None:
            raise ValueError("the supervised objective needs labels, and was given none")
        z1, z2 = embeddings.views[:2]
        return supervised_loss(z1, z2, embeddings.labels, self.label_smoothing)
