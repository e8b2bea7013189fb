"""BYOL (Grill et al. 2020, equation 2): predict what the target network says of the other view.

The predictor belongs to the loss, not to the head: the target network has none. Its layers are those of the
released BYOL report (`src/model.py`), the loss that of its `loss.py`. The target itself is `pipeline.target`.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.config import objectives as settings
from pipeline.errors import ConfigError
from pipeline.heads import mlp
from pipeline.objectives.base import Embeddings, Objective, unit_vectors
from pipeline.randomness import seeded_initialisation


def byol_loss(p1: Tensor, p2: Tensor, t1: Tensor, t2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the batch of `(2 - 2 cos(p1, t2)) + (2 - 2 cos(p2, t1))`; a zero vector has cosine 0.

    Args:
        p1, p2: online predictions of views 1 and 2, `[N, D]`.
        t1, t2: target projections of views 1 and 2, `[N, D]`.

    Returns:
        The loss, and `similarity`: the mean cosine of prediction and target.
    """
    q1, q2, u1, u2 = (unit_vectors(z) for z in (p1, p2, t1, t2))
    cosines = (q1 * u2).sum(dim=1) + (q2 * u1).sum(dim=1)
    return (4 - 2 * cosines).mean(), {"similarity": cosines.detach().mean() / 2}


class BYOL(Objective):
    """The predictor and the loss.

    Raises:
        ConfigError: the predictor's output cannot be compared with the target's.
    """

    uses_target = True

    def __init__(self, config: settings.BYOL, width: int, seed: int, stage: int) -> None:
        super().__init__()
        layers = config.predictor or (width,)
        if layers[-1] != width:
            raise ConfigError(
                "objective.predictor",
                f"its last layer has {layers[-1]} outputs, and the embeddings that it predicts {width}",
                f"End it with {width}, or change the last width of head.projector",
            )
        with seeded_initialisation(seed, "predictor", stage):
            self.predictor = mlp((width, *layers), bias=True)

    def forward(self, embeddings: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings and targets, `[N, D]`, of the two views to the loss and its terms.

        Raises:
            ValueError: the targets are missing.
        """
        if len(embeddings.targets) != 2:
            raise ValueError(f"BYOL needs the targets of two views, and was given {len(embeddings.targets)}")
        p1, p2 = (self.predictor(z) for z in embeddings.views[:2])
        return byol_loss(p1, p2, *embeddings.targets)
