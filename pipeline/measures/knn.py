"""Weighted nearest-neighbour accuracy of a frozen feature.

Each of the k most similar training samples votes for its class with the weight exp(cosine / temperature) (Wu et al.,
"Unsupervised Feature Learning via Non-Parametric Instance Discrimination", arXiv 1805.01978, section 3.4).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ConfigError
from pipeline.measures.accuracy import TOP, label_ranks

CPU = torch.device("cpu")
MEMORY_BYTES = 256 * 2**20
_TRAIN_ROWS = 8192
"""Training samples that are compared at once."""
_BYTES_PER_PAIR = 24
"""Of a similarity, with the temporary memory of the top-k selection."""


def knn_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    ks: Sequence[int],
    temperature: float,
    memory_bytes: int = MEMORY_BYTES,
    device: torch.device = CPU,
) -> dict[int, tuple[float, float]]:
    """Top-1 and top-5 accuracy, 0 to 1, for every k.

    Among equally similar samples the first in the training set are the neighbours, and among classes with equal votes
    the lowest wins. A class without a neighbour is never predicted, so top-5 can be below 1 with few classes, and
    equals top-1 for k = 1. A test label that the training set lacks counts as an error.

    Args:
        train, test: float32 `[N, D]` and `[M, D]`; may be mapped from a file.
        train_labels, test_labels: int64 `[N]` and `[M]`, from 0.
        ks: numbers of neighbours.
        temperature: the lower, the more the nearest count.
        memory_bytes: approximate memory for the similarities of test and training samples.
        device: that computes them.

    Raises:
        ConfigError: a k is larger than the training set.
    """
    check_neighbours(ks, len(train))
    classes = int(train_labels.max()) + 1
    kept = min(_TRAIN_ROWS, len(train)) + max(ks)
    rows = max(1, min(memory_bytes // (kept * _BYTES_PER_PAIR), len(test)))
    counts = {k: [0, 0] for k in ks}
    for queries, labels in zip(torch.split(test, rows), torch.split(test_labels.cpu(), rows), strict=True):
        similar, indices = _neighbours(F.normalize(queries.to(device), dim=1), train, max(ks))
        voters = train_labels.cpu()[indices]
        for k in ks:
            ranks, voted = _ranks(similar[:, :k], voters[:, :k], labels, classes, temperature)
            counts[k][0] += int((voted & (ranks < 1)).sum())
            counts[k][1] += int((voted & (ranks < TOP)).sum())
    return {k: (first / len(test), five / len(test)) for k, (first, five) in counts.items()}


def check_neighbours(ks: Sequence[int], samples: int) -> None:
    """Raise `ConfigError` if a k is larger than the training set."""
    if max(ks, default=0) > samples:
        raise ConfigError(
            "evaluation.knn.k",
            f"{max(ks)} neighbours are more than the {samples} images of the training set",
            f"Give at most {samples}, or none at all with evaluation.knn.k=[]",
        )


def _neighbours(queries: Tensor, train: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarities, descending, and indices of the k nearest training samples, `[B, k]` each, on the CPU."""
    best = queries.new_empty(len(queries), 0)
    indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(train), _TRAIN_ROWS):
        part = F.normalize(train[start : start + _TRAIN_ROWS].to(queries.device), dim=1)
        similar = torch.cat([best, queries @ part.T], dim=1)
        numbers = torch.arange(start, start + len(part), device=queries.device).expand(len(queries), -1)
        chosen = _first_largest(similar, min(k, similar.shape[1]))
        best, indices = similar.gather(1, chosen), torch.cat([indices, numbers], dim=1).gather(1, chosen)
    return best.cpu(), indices.cpu()


def _first_largest(values: Tensor, k: int) -> Tensor:
    """Positions of the k largest values of every row of `[B, n]`, descending; among equal values the first ones."""
    top = values.topk(k, dim=1)
    positions = top.indices.sort(dim=1).values
    # topk does not define which of several values equal to the k-th it takes; only few rows have such ties.
    crowded = (values >= top.values[:, -1:]).sum(dim=1) > k
    if crowded.any():
        positions[crowded] = values[crowded].sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values
    order = values.gather(1, positions).sort(dim=1, descending=True, stable=True).indices
    return positions.gather(1, order)


def _ranks(similar: Tensor, voters: Tensor, labels: Tensor, classes: int, temperature: float) -> tuple[Tensor, Tensor]:
    """The rank of the correct class by votes, `[B]`, and whether it has any votes, `[B]`."""
    # Relative to the most similar: the winner is the same, and the exponential cannot overflow.
    weights = ((similar - similar[:, :1]).double() / temperature).exp()
    votes = torch.zeros(len(labels), classes, dtype=torch.float64).scatter_add_(1, voters, weights)
    return label_ranks(votes, labels), (voters == labels.unsqueeze(1)).any(dim=1)
