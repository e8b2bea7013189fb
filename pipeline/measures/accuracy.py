"""Top-1 and top-5 accuracy, the same for all classifiers.

They are written out so that ties, labels without an output and NaN logits count the same everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOP = 5


def label_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """The number of classes ranked before the correct one: 0 where the prediction is correct.

    Among equal scores the class with the lower number comes first.

    Args:
        scores: `[B, C]`, higher is more likely.
        labels: int64 `[B]`.

    Returns:
        int64 `[B]`. It is C where the label has no score: the label is not below C, or its score is NaN.
    """
    classes = scores.shape[1]
    has_score = (labels >= 0) & (labels < classes)
    safe = torch.where(has_score, labels, 0).unsqueeze(1)
    label_score = scores.gather(1, safe)
    has_score &= ~label_score.squeeze(1).isnan()
    earlier = torch.arange(classes, device=scores.device) < safe
    before = (scores > label_score) | ((scores == label_score) & earlier)
    return torch.where(has_score, before.sum(dim=1), classes)


def count_correct(scores: Tensor, labels: Tensor) -> tuple[int, int]:
    """The number of samples, of `B`, whose label is the first prediction, and among the first five.

    With five classes or fewer, every sample whose label has a score counts as correct within five.

    Args:
        scores: `[B, C]`.
        labels: int64 `[B]`; a label without a score counts as an error.
    """
    ranks, classes = label_ranks(scores, labels), scores.shape[1]
    return int((ranks < 1).sum()), int((ranks < min(TOP, classes)).sum())
