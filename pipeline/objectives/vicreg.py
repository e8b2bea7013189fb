"""VICReg (Bardes et al. 2022, equation 6): invariance, variance and covariance.

The factors are those of the released `main_vicreg.py`, which differs from the paper in one point: it halves the
variance term of each view.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from pipeline.config import objectives as settings
from pipeline.objectives.base import Embeddings, Objective, over_pairs

EPSILON = 1e-4
"""Added to the variance under the root, whose gradient would be infinite at 0."""


def variance_term(z: Tensor) -> Tensor:
    """`[N, D]` to the mean over dimensions of `max(0, 1 - sqrt(var + eps))`, with the unbiased variance."""
    return F.relu(1 - (z.var(dim=0) + EPSILON).sqrt()).mean()


def covariance_term(z: Tensor) -> Tensor:
    """`[N, D]` to `sum_{i != j} cov_ij^2 / D`, with the covariance over N - 1."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def vicreg_loss(z1: Tensor, z2: Tensor, config: settings.VICRegConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the mean squared difference, and of both views' variance and covariance terms.

    Args:
        z1, z2: embeddings of the two views, `[N, D]`, N >= 2.
        config: the three weights, and whether the variance terms are halved.

    Returns:
        The loss and the three terms without their weights: `invariance`, `variance`, `covariance`.
    """
    invariance = F.mse_loss(z1, z2)
    variance = (variance_term(z1) + variance_term(z2)) * (0.5 if config.std_halved else 1.0)
    covariance = covariance_term(z1) + covariance_term(z2)
    loss = (
        config.invariance_weight * invariance
        + config.variance_weight * variance
        + config.covariance_weight * covariance
    )
    terms = {"invariance": invariance, "variance": variance, "covariance": covariance}
    return loss, {name: term.detach() for name, term in terms.items()}


class VICReg(Objective):
    """The loss with its settings."""

    def __init__(self, config: settings.VICRegConfig, width: int, seed: int, stage: int) -> None:
        super().__init__()
        self.config = config

    def forward(self, embeddings: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings `[N, D]` of the views to the loss and its terms, the mean over pairs (`over_pairs`)."""
        return over_pairs(embeddings.views, lambda z1, z2: vicreg_loss(z1, z2, self.config))
