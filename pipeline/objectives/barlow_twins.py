"""Barlow Twins (Zbontar et al. 2021, equation 1): make the views agree, dimension by dimension.

The loss drives the cross-correlation of the two views' embeddings to the identity: ones on the diagonal
(the views agree), zeros elsewhere (the dimensions are decorrelated).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from pipeline.config import objectives as settings
from pipeline.objectives.base import Embeddings, Objective, over_pairs


def cross_correlation(z1: Tensor, z2: Tensor) -> Tensor:
    """`[N, D]` twice to `[D, D]`: each view standardised over the batch (biased variance, eps 1e-5)."""
    first = F.batch_norm(z1, None, None, training=True)
    second = F.batch_norm(z2, None, None, training=True)
    return first.T @ second / z1.shape[0]


def barlow_twins_loss(z1: Tensor, z2: Tensor, lambd: float, scale: float) -> tuple[Tensor, dict[str, Tensor]]:
    """`scale * (sum_i (c_ii - 1)^2 + lambd * sum_{i != j} c_ij^2)` and its two unscaled sums.

    Args:
        z1, z2: embeddings of the two views, `[N, D]`, N >= 2.
        lambd: weight of the off-diagonal sum.
        scale: factor on everything (`--scale-loss` of the released code).
    """
    c = cross_correlation(z1, z2)
    diagonal = c.diagonal()
    on_diagonal = (diagonal - 1).square().sum()
    off_diagonal = c.square().sum() - diagonal.square().sum()
    loss = scale * (on_diagonal + lambd * off_diagonal)
    return loss, {"on_diagonal": on_diagonal.detach(), "off_diagonal": off_diagonal.detach()}


class BarlowTwins(Objective):
    """The loss with its settings; the stage divides the gradient by `reference_world_size`."""

    def __init__(self, config: settings.BarlowTwinsConfig, width: int, seed: int, stage: int) -> None:
        super().__init__()
        self.lambd, self.scale = config.lambd, config.scale

    def forward(self, embeddings: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings `[N, D]` of the views to the loss and its terms, the mean over pairs (`over_pairs`)."""
        return over_pairs(embeddings.views, lambda z1, z2: barlow_twins_loss(z1, z2, self.lambd, self.scale))
