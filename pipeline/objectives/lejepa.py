"""LeJEPA (Balestriero and LeCun 2025, arXiv 2511.08544): predict the views' mean, and keep embeddings Gaussian.

The second term, SIGReg, projects each view's embeddings onto random directions and compares the empirical
characteristic function of each projection with that of the standard normal distribution (the test of Epps and Pulley).
There is no teacher, no predictor and no stop-gradient. The directions are drawn anew at every step, from a key.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import objectives as settings
from pipeline.objectives.base import Embeddings, Objective
from pipeline.randomness import generator


def sigreg(z: Tensor, directions: Tensor, knots: int, t_max: float) -> Tensor:
    """How far the embeddings are from a standard normal distribution, the mean over views and directions; a scalar.

    Of the projections x_b of one view on one direction: N times the integral over t from -t_max to t_max of
    `|mean_b exp(i t x_b) - phi(t)|^2 phi(t)`, with `phi(t) = exp(-t^2 / 2)`, by the trapezoidal rule.

    Args:
        z: embeddings, `[V, N, D]`.
        directions: K unit vectors, the columns of `[D, K]`.
        knots: points of the integration in `[0, t_max]`, ends included; the integrand is even.
        t_max: end of the integration.
    """
    spacing = t_max / (knots - 1)
    t = torch.arange(knots, dtype=z.dtype, device=z.device) * spacing
    normal = (-t.square() / 2).exp()
    angles = (z @ directions).unsqueeze(-1) * t  # [V, N, K, knots]
    error = (angles.cos().mean(dim=1) - normal).square() + angles.sin().mean(dim=1).square()
    half = torch.trapezoid(error * normal, dx=spacing)
    return 2 * z.shape[1] * half.mean()


def lejepa_loss(
    z: Tensor, directions: Tensor, config: settings.LeJEPAConfig, global_views: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """`lambd * sigreg + (1 - lambd) * prediction`, and the two terms.

    `prediction` is the mean over all views, images and dimensions of `(z - c)^2`, c the mean of the global views.

    Args:
        z: embeddings, `[V, N, D]`.
        directions: K unit vectors, the columns of `[D, K]`.
        config: the weight `lambd`, and the points of the integration.
        global_views: how many of the first views c is the mean of.
    """
    prediction = (z - z[:global_views].mean(dim=0)).square().mean()
    gaussian = sigreg(z, directions, config.knots, config.t_max)
    loss = config.lambd * gaussian + (1 - config.lambd) * prediction
    return loss, {"sigreg": gaussian.detach(), "prediction": prediction.detach()}


class LeJEPA(Objective):
    """The loss with its settings, and the directions of each step."""

    def __init__(self, config: settings.LeJEPAConfig, width: int, seed: int, stage: int) -> None:
        super().__init__()
        self.config, self._seed, self._stage = config, seed, stage

    def directions(self, like: Tensor, step: int) -> Tensor:
        """Unit vectors, evenly distributed: the columns of `[D, K]`, of the dtype and on the device of `like`.

        Args:
            like: embeddings, `[..., D]`.
            step: with seed and stage, the key of the draw, which is so the same in every replica and runtime.
        """
        source = generator(like.device, self._seed, "directions", step, self._stage)
        shape = (like.shape[-1], self.config.directions)
        drawn = torch.randn(shape, generator=source, dtype=like.dtype, device=like.device)
        directions: Tensor = drawn / drawn.norm(dim=0)
        return directions

    def forward(self, embeddings: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings `[N, D]` of the views, any number of them, to the loss and its terms."""
        z = torch.stack(embeddings.views)
        directions = self.directions(z, embeddings.step)
        return lejepa_loss(z, directions, self.config, self.config.global_views or len(z))
