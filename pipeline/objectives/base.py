"""The base class of all objectives and its input, the embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Embeddings:
    """The input of a loss: the embeddings of one batch.

    Args:
        views: `[N, D]` each: view 1, view 2, and the others of `data.views`.
        targets: `[N, D]` each: the target network's embeddings of views 1 and 2, detached; empty unless `uses_target`.
        labels: class of every image, `[N]` int64; None unless a loss of the run, or `evaluation.online`, uses labels.
        patch: embedding of the negative patch, `[N, D]`; None if the run has none.
        step: of the run, counted from 0; keys what a loss draws.
    """

    views: tuple[Tensor, ...]
    targets: tuple[Tensor, ...] = ()
    labels: Tensor | None = None
    patch: Tensor | None = None
    step: int = 0


class Objective(nn.Module, ABC):
    """A local loss, which sees the whole batch and nothing of another stage.

    The losses of this package are built from `(config, width, seed, stage)`: their section of the configuration, the
    size D of the embeddings, and the key of the initialisation of their weights, if they have any. A custom loss is
    built from `(width, **objective.options)`; its initialisation is seeded for it.
    """

    uses_target: ClassVar[bool] = False
    """Whether it needs `Embeddings.targets`."""
    uses_labels: ClassVar[bool] = False
    """Whether it needs `Embeddings.labels`."""

    @abstractmethod
    def forward(self, embeddings: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, a scalar, and its named terms, detached scalars for the metrics."""


def over_pairs(
    views: Sequence[Tensor], loss: Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean over pairs of views of a loss of two views, and of its terms.

    Views 1 and 2 are compared with each other and both with every other view: the pairs (a, b) with a one of the first
    two and b > a. Smaller views (multi-crop) are never compared among themselves, as in SwAV (Caron et al. 2020,
    section 3.3) and DINO (Caron et al. 2021, equation 3). With two views it is `loss` itself.

    Args:
        views: embeddings, `[N, D]` each, two or more.
        loss: a function of the embeddings of two views.
    """
    results = [loss(views[a], views[b]) for a in range(2) for b in range(a + 1, len(views))]
    if len(results) == 1:
        return results[0]
    terms = {name: torch.stack([pair_terms[name] for _, pair_terms in results]).mean() for name in results[0][1]}
    return torch.stack([value for value, _ in results]).mean(), terms


def unit_vectors(z: Tensor) -> Tensor:
    """Rows of `[N, D]` scaled to length 1; a zero row stays zero, also in half precision, where 1e-12 would be 0."""
    return F.normalize(z, dim=1, eps=max(1e-12, torch.finfo(z.dtype).tiny))
