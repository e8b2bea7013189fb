"""Linear probe: logistic regression on a frozen feature, fitted with L-BFGS.

Features are standardised, and full-batch L-BFGS runs a fixed number of iterations from zero weights: it is
deterministic, has no learning rate to tune, and takes seconds on a CPU. It is meant for comparing blocks and
runs; the papers' SGD protocols give slightly different numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

L2 = 1e-3
ITERATIONS = 100
SCORES = 4
"""Arrays as large as the scores of all images that a step of the fit holds: with their logarithms and gradients."""


@dataclass(frozen=True)
class LinearClassifier:
    """A fitted classifier of `C` classes.

    Args:
        mean, std: of the features that it was fitted on, `[D]`.
        weight: `[C, D]`, for standardised features.
        bias: `[C]`.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    @torch.no_grad()
    def classify(self, features: Tensor) -> Tensor:
        """The classes of features `[M, D]`, int64 `[M]`."""
        return F.linear((features - self.mean) / self.std, self.weight, self.bias).argmax(dim=1)

    def to(self, device: torch.device) -> LinearClassifier:
        """The same, for features on `device`."""
        return LinearClassifier(*(tensor.to(device) for tensor in (self.mean, self.std, self.weight, self.bias)))


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
    classifier = fit_linear_probe(train, train_labels, l2, iterations)
    return (classifier.classify(test) == test_labels).float().mean().item()


def fitting_bytes(train: int, test: int, width: int, classes: int) -> int:
    """What `linear_probe_accuracy` takes at most beside the features that it is given.

    Args:
        train, test: numbers of images.
        width: of the feature.
        classes: that the training images have.
    """
    copies = max(2 * train * width, 2 * test * width)  # centred, and standardised
    scores = train * width + SCORES * train * classes
    return 4 * max(copies, scores)


def fit_linear_probe(
    train: Tensor, train_labels: Tensor, l2: float = L2, iterations: int = ITERATIONS
) -> LinearClassifier:
    """Fit the classifier whose accuracy `linear_probe_accuracy` returns, to test it on several sets of images."""
    mean, std = train.mean(dim=0), train.std(dim=0).clamp_min(1e-6)
    train = (train - mean) / std
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
    return LinearClassifier(mean, std, weight.detach(), bias.detach())
