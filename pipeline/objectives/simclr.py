"""SimCLR (Chen et al. 2020, equation 1, NT-Xent): classify an image's other view among negatives.

The negatives are all other images of the batch, as published (FFCV-SSL `examples/train_ssl.py` and the released BYOL
report agree on the formula), or one patch of the same image, so that no two images are ever compared.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import objectives as settings
from pipeline.objectives.base import Embeddings, Objective, over_pairs, unit_vectors


def nt_xent_loss(z1: Tensor, z2: Tensor, temperature: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over 2N samples of `-log(exp(s_pos / T) / sum_{k != self} exp(s_k / T))`, s the cosine.

    Args:
        z1, z2: embeddings of the two views, `[N, D]`.
        temperature: T; cosines are divided by it.

    Returns:
        The loss, and `contrast_accuracy`: the share of samples whose positive is the most similar of all 2N - 1 others.
    """
    z = unit_vectors(torch.cat((z1, z2)))
    logits = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = logits.masked_fill(itself, float("-inf"))
    other_view = torch.arange(len(z), device=z.device).roll(len(z1))
    return _contrast(logits, other_view)


def single_patch_loss(z1: Tensor, z2: Tensor, patch: Tensor, temperature: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over 2N of `-log(exp(s_pos / T) / (exp(s_pos / T) + exp(s_patch / T)))`, s the cosine.

    Each view of an image is compared with its other view and with that image's patch, and with nothing else.

    Args:
        z1, z2: embeddings of the two views, `[N, D]`.
        patch: embedding of the negative patch of each image, `[N, D]`.
        temperature: T; cosines are divided by it.

    Returns:
        The loss, and `contrast_accuracy`: the share of samples whose other view is more similar than the patch.
    """
    first, second, negative = unit_vectors(z1), unit_vectors(z2), unit_vectors(patch)
    positives = (first * second).sum(dim=1).repeat(2)
    negatives = torch.cat(((first * negative).sum(dim=1), (second * negative).sum(dim=1)))
    # The patch comes first because argmax takes the first of equal values, so a tie counts as wrong.
    logits = torch.stack((negatives, positives), dim=1) / temperature
    return _contrast(logits, torch.ones_like(positives, dtype=torch.int64))


def _contrast(logits: Tensor, positive: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of `[M, K]` logits with the position of the positive, `[M]`."""
    loss = F.cross_entropy(logits, positive)
    correct = logits.detach().argmax(dim=1) == positive
    return loss, {"contrast_accuracy": correct.to(logits.dtype).mean()}


class SimCLR(Objective):
    """The loss with its settings."""

    def __init__(self, config: settings.SimCLRConfig, width: int, seed: int, stage: int) -> None:
        super().__init__()
        self.temperature, self.negatives = config.temperature, config.negatives

    def forward(self, embeddings: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings `[N, D]` of the views, and of the patch for `single_patch`, to the loss and its terms.

        With more than two views they are the mean over pairs (`over_pairs`); a pair's negatives are its own 2N views.

        Raises:
            ValueError: `single_patch` without the embeddings of the patch, or with more than two views.
        """
        if self.negatives == "batch":
            return over_pairs(embeddings.views, lambda z1, z2: nt_xent_loss(z1, z2, self.temperature))
        if embeddings.patch is None or len(embeddings.views) != 2:
            raise ValueError("negatives=single_patch needs two views and the negative patch")
        z1, z2 = embeddings.views
        return single_patch_loss(z1, z2, embeddings.patch, self.temperature)
