"""A classifier with one hidden layer on a frozen feature.

The FFCV-SSL study (arXiv 2303.01986) reports such a probe beside the linear one. Its released code has only linear
probes, trained with AdamW; the optimizer is from there, the rest is our choice: 2,048 hidden units, the width of the
papers' features, ReLU, standardised features. Early stopping uses a held-out tenth of the training set; the test set is
used once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from pipeline.errors import UserError
from pipeline.evaluation.few_label import CPU, few_label_indices
from pipeline.measures.accuracy import count_correct
from pipeline.randomness import derive_seed, generator, seeded_initialisation

HIDDEN = 2048
EPOCHS = 100
"""Largest number of epochs."""
PATIENCE = 10
"""Epochs without a better accuracy on the held-out part, after which training stops."""
HELD_OUT = 0.1
BATCH_SIZE = 256
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2
_ROWS = 4096


@dataclass(frozen=True)
class MlpScore:
    """Accuracies, 0 to 1, of the weights with the best accuracy on the held-out part.

    Args:
        top1, top5: on the test set.
        held_out: top-1 on the held-out part of the training set.
        epoch: after which the weights were best, counted from 1.
        epochs: number of epochs that ran.
    """

    top1: float
    top5: float
    held_out: float
    epoch: int
    epochs: int


def hold_out(labels: Tensor, seed: int, share: float = HELD_OUT) -> tuple[Tensor, Tensor]:
    """Ascending indices of the samples to fit on and of those to hold out, int64.

    The share of every class with two or more samples is held out, rounded, at least one; a single sample is not.

    Raises:
        UserError: no class has two samples.
    """
    counts = labels.bincount()
    several = (counts[labels] > 1).nonzero().squeeze(1)
    if not len(several):
        raise UserError(
            "the MLP probe holds out a part of the training set to know when to stop, and no class has two images. "
            "Set evaluation.mlp=false"
        )
    held = several[few_label_indices(labels[several], share, derive_seed(seed, "held out"))]
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[held] = False
    return kept.nonzero().squeeze(1), held


def fit_mlp(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    seed: int,
    device: torch.device,
    epochs: int = EPOCHS,
    patience: int = PATIENCE,
) -> MlpScore:
    """Fit on nine tenths of the training set with early stopping on the rest, and test.

    Args:
        train, test: float32 `[N, D]` and `[M, D]`; may be mapped from a file.
        train_labels, test_labels: int64 `[N]` and `[M]`, from 0; a test label that `train` lacks counts as an error.
        seed: of the initial weights, the order of samples and the held-out part.
        device: to compute on.
        epochs: largest number of epochs.
        patience: epochs without a better accuracy on the held-out part.

    Raises:
        UserError: no class has two samples.
    """
    fitted, held = hold_out(train_labels, seed)
    network = _network(train, fitted, int(train_labels.max()) + 1, seed).to(device)
    held_features, held_labels = train.index_select(0, held), train_labels[held]
    optimizer = AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best, best_epoch, epoch = -1.0, 0, 0
    kept: dict[str, Tensor] = {}
    while epoch < epochs and epoch - best_epoch < patience:
        order = fitted[torch.randperm(len(fitted), generator=generator(CPU, seed, "order", epoch))]
        for rows in torch.split(order, BATCH_SIZE):
            loss = F.cross_entropy(network(train.index_select(0, rows).to(device)), train_labels[rows].to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        epoch += 1
        accuracy, _ = _accuracies(network, held_features, held_labels, device)
        if accuracy > best:
            best, best_epoch = accuracy, epoch
            kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(kept)
    top1, top5 = _accuracies(network, test, test_labels, device)
    return MlpScore(top1, top5, best, best_epoch, epoch)


class _Standardise(nn.Module):
    """Standardise features with the mean and standard deviation of the fitted part of the training set."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def _network(train: Tensor, fitted: Tensor, classes: int, seed: int) -> nn.Sequential:
    """`[B, D]` to `[B, classes]`."""
    total = square = torch.zeros(train.shape[1], dtype=torch.float64)
    for rows in torch.split(fitted, _ROWS):  # in parts: the features may be larger than the memory
        part = train.index_select(0, rows).double()
        total, square = total + part.sum(dim=0), square + part.square().sum(dim=0)
    mean = total / len(fitted)
    std = (square / len(fitted) - mean.square()).clamp_min(0).sqrt().clamp_min(1e-6)
    with seeded_initialisation(seed, "mlp"):
        layers = (nn.Linear(train.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))
    return nn.Sequential(_Standardise(mean.float(), std.float()), *layers)


@torch.no_grad()
def _accuracies(network: nn.Module, features: Tensor, labels: Tensor, device: torch.device) -> tuple[float, float]:
    top1 = top5 = 0
    for rows, classes in zip(torch.split(features, _ROWS), torch.split(labels, _ROWS), strict=True):
        first, five = count_correct(network(rows.to(device)), classes.to(device))
        top1, top5 = top1 + first, top5 + five
    return top1 / len(labels), top5 / len(labels)
