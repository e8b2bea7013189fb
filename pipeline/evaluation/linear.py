"""Linear probe: how much of the labels a linear classifier reads off a frozen feature.

Multinomial logistic regression on standardised features, fitted with full-batch L-BFGS to a fixed
number of iterations from zero weights: deterministic, no learning rate to tune, seconds on a CPU.
It is meant for comparing blocks and runs; the papers' SGD protocols give slightly other numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

L2 = 1e-3
ITERATIONS = 100


def linear_probe_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, l2: float = L2, iterations: int = ITERATIONS
) -> float:
    """Top-1 accuracy on the test set, 0 to 1.

    Args:
        train, test: features `[N, D]` and `[M, D]`.
        train_labels, test_labels: classes from 0, `[N]` and `[M]`, int64.
        l2: half the weight of the squared norm of the classifier's weights in the loss.
        iterations: of L-BFGS.
    """
    mean, std = train.mean(dim=0), train.std(dim=0).clamp_min(1e-6)
    train, test = (train - mean) / std, (test - mean) / std
    classes = int(train_labels.max()) + 1
    weight = torch.zeros(classes, train.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=iterations, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(train, weight, bias), train_labels) + l2 / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        predicted = F.linear(test, weight, bias).argmax(dim=1)
    return (predicted == test_labels).float().mean().item()
