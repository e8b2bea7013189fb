"""BYOL (Grill et al. 2020, equation 2): predict the target network's embedding of the other view.

The predictor belongs to the loss, not to the head, because the target network has none. Its layers are those of
the released BYOL report (`src/model.py`), and the loss is that of its `loss.py`. The target network is in
`pipeline.stage.target_network`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

from torch import Tensor

from pipeline.backbones.heads import mlp
from pipeline.config import objectives as settings
from pipeline.errors import ConfigError
from pipeline.objectives.base import Embeddings, Objective, unit_vectors
from pipeline.randomness import seeded_initialisation


def byol_loss(predictions: Sequence[Tensor], targets: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Twice the mean of `2 - 2 cos(p_b, t_a)` over the batch and all a != b; a zero vector has cosine 0.

    With two views it is the published `(2 - 2 cos(p_1, t_2)) + (2 - 2 cos(p_2, t_1))`. Smaller views (multi-crop) have
    no targets and predict those of both other views, as in DINO (Caron et al. 2021, equation 3).

    Args:
        predictions: p, the online network's predictions for every view, `[N, D]` each.
        targets: t, the target network's embeddings of views 1 and 2, `[N, D]` each.

    Returns:
        The loss, and `similarity`: the mean cosine of prediction and target.
    """
    online, goals = [unit_vectors(p) for p in predictions], [unit_vectors(t) for t in targets]
    each = [(q * u).sum(dim=1) for b, q in enumerate(online) for a, u in enumerate(goals) if a != b]
    cosines = reduce(add, each)
    return (4 - 4 / len(each) * cosines).mean(), {"similarity": cosines.detach().mean() / len(each)}


class BYOL(Objective):
    """The predictor and the loss.

    Raises:
        ConfigError: the predictor's output cannot be compared with the target's.
    """

    uses_target = True

    def __init__(self, config: settings.BYOLConfig, width: int, seed: int, stage: int) -> None:
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
        """Embeddings of the views and targets of the first two, `[N, D]` each, to the loss and its terms.

        Raises:
            ValueError: the targets are missing.
        """
        if len(embeddings.targets) != 2:
            raise ValueError(f"BYOL needs the targets of two views, and was given {len(embeddings.targets)}")
        return byol_loss([self.predictor(z) for z in embeddings.views], embeddings.targets)
