"""Top-1 and top-5 accuracy, the same for every classifier that is measured.

Written out because ties, labels that no output stands for and logits that are not numbers must count the same
everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOP = 5


def label_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the right one: 0 where the prediction is right.

    Of equal scores the class with the lower number comes first.

    Args:
        scores: `[B, C]`, higher is more likely.
        labels: int64 `[B]`.

    Returns:
        int64 `[B]`. It is C where the label has no score: it is not below C, or its score is not a number.
    """
    classes = scores.shape[1]
    known = (labels >= 0) & (labels < classes)
    safe = torch.where(known, labels, 0).unsqueeze(1)
    own = scores.gather(1, safe)
    known &= ~own.squeeze(1).isnan()
    earlier = torch.arange(classes, device=scores.device) < safe
    before = (scores > own) | ((scores == own) & earlier)
    return torch.where(known, before.sum(dim=1), classes)


def right(scores: Tensor, labels: Tensor) -> tuple[int, int]:
    """How many of `B` samples are right within the first guess, and within the first five.

    With five classes or fewer every sample whose label has a score is right within five.

    Args:
        scores: `[B, C]`.
        labels: int64 `[B]`; one that no score stands for is an error.
    """
    ranks, classes = label_ranks(scores, labels), scores.shape[1]
    return int((ranks < 1).sum()), int((ranks < min(TOP, classes)).sum())
