"""Linear classifiers on frozen features, fitted by the papers' protocols.

All random numbers are keyed: a probe's initial weights by its seed, the order of an epoch's samples by its seed and
the epoch. So the result on the same features is bit-identical, however many probes are fitted together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from pipeline.config.places import Place
from pipeline.measures.accuracy import count_correct
from pipeline.measures.protocols import INITIAL_STD, Protocol
from pipeline.randomness import generator

SCORING_ROWS = 4096
"""Test samples that are classified at once."""


@dataclass(frozen=True)
class ProbeScore:
    """Accuracies on the test set, 0 to 1.

    Args:
        top1, top5: after the last epoch. With five classes or fewer top-5 is 1, except for labels that the training set
            lacks.
        best_top1, best_top5: the best of all epochs on the test set, each separately: the released code logs it as
            `best_acc`. The epoch is selected on the test set, so report the last epoch beside it.
        epochs: passes over the training set.
    """

    top1: float
    top5: float
    best_top1: float
    best_top5: float
    epochs: int


class LinearProbe:
    """A linear classifier in training.

    Args:
        width: of the features, D.
        classes: outputs, C.
        protocol: optimizer, epochs, learning rates.
        steps_per_epoch: of the schedule.
        seed: of the initial weights and the order of samples.
        device: to train on.
    """

    def __init__(
        self, width: int, classes: int, protocol: Protocol, steps_per_epoch: int, seed: int, device: torch.device
    ) -> None:
        self.protocol, self.steps_per_epoch, self.seed, self.device = protocol, steps_per_epoch, seed, device
        self.epoch = 0
        """Number of completed epochs."""
        self._step = 0
        source = generator(torch.device("cpu"), seed, "probe")
        weight = INITIAL_STD * torch.randn(classes, width, generator=source)
        self.weight = weight.to(device).requires_grad_()
        self.bias = torch.zeros(classes, device=device, requires_grad=True)
        self._optimizer = _optimizer([self.weight, self.bias], protocol)

    @property
    def finished(self) -> bool:
        """Whether all epochs are completed."""
        return self.epoch >= self.protocol.epochs

    @torch.enable_grad()
    def step(self, features: Tensor, labels: Tensor) -> None:
        """One step on features `[B, D]`, which get no gradient, with classes `[B]` below C."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.protocol.learning_rate(self._step, self.steps_per_epoch)
        loss = F.cross_entropy(self._forward(features.detach()), labels.to(self.device))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._step += 1

    def end_epoch(self) -> None:
        """End an epoch; its remaining steps in the schedule are skipped."""
        self.epoch += 1
        self._step = self.epoch * self.steps_per_epoch

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """`[B, D]` to `[B, C]`, on the probe's device."""
        return self._forward(features)

    def order(self, samples: int) -> Tensor:
        """The order of the samples in this epoch, int64 `[samples]`."""
        return torch.randperm(samples, generator=generator(torch.device("cpu"), self.seed, "order", self.epoch))

    def _forward(self, features: Tensor) -> Tensor:
        # In this order, a CPU's matrix product is almost twice as fast for few classes.
        return (self.weight @ features.to(self.device, torch.float32).T).T + self.bias


class _Scores:
    """The accuracies of a probe after every epoch."""

    def __init__(self) -> None:
        self._top1: list[float] = []
        self._top5: list[float] = []

    def add(self, probe: LinearProbe, test: Tensor, labels: Tensor) -> None:
        top1, top5 = accuracies(probe, test, labels)
        self._top1.append(top1)
        self._top5.append(top5)

    def score(self) -> ProbeScore:
        top1, top5 = self._top1, self._top5
        return ProbeScore(top1[-1], top5[-1], max(top1), max(top5), len(top1))


def accuracies(probe: LinearProbe, test: Tensor, labels: Tensor) -> tuple[float, float]:
    """Top-1 and top-5 accuracy of a probe on features `[M, D]` with classes `[M]`."""
    top1 = top5 = 0
    for rows, classes in zip(torch.split(test, SCORING_ROWS), torch.split(labels, SCORING_ROWS), strict=True):
        first, five = count_correct(probe.logits(rows), classes.to(probe.device))
        top1, top5 = top1 + first, top5 + five
    return top1 / len(labels), top5 / len(labels)


def fit(probe: LinearProbe, train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> ProbeScore:
    """Train a new probe for all its epochs on given features, and test it after each.

    Args:
        probe: untrained; its `steps_per_epoch` must be that of `train` (`steps`).
        train, test: float32 `[N, D]` and `[M, D]`, on any device; may be mapped from a file.
        train_labels, test_labels: int64 `[N]`, below C, and `[M]`; a test label that is not below C counts as an error.
    """
    scores = _Scores()
    train, train_labels, test, test_labels = (_near(x, probe.device) for x in (train, train_labels, test, test_labels))
    while not probe.finished:
        for rows in torch.split(probe.order(len(train)).to(train.device), probe.protocol.batch_size):
            # index_select takes a quarter of the time of indexing, which is most of a step for large D.
            probe.step(train.index_select(0, rows), train_labels[rows.to(train_labels.device)])
        probe.end_epoch()
        scores.add(probe, test, test_labels)
    return scores.score()


def fit_augmented(
    probes: Mapping[tuple[Place, str], LinearProbe],
    epochs: Iterable[Iterable[tuple[Mapping[Place, Tensor], Tensor]]],
    test: Mapping[Place, Tensor],
    test_labels: Tensor,
) -> dict[tuple[Place, str], ProbeScore]:
    """Fit many probes together on features that are new in every epoch.

    Args:
        probes: untrained, by place and name of the protocol.
        epochs: as many as the longest protocol has. Each consists of batches of any size, in a new order: features
            `[B, D]` by place, and classes `[B]`. They are split into the batches of each protocol.
        test: features `[M, D]` by place.
        test_labels: `[M]`.

    Raises:
        ValueError: there are fewer epochs than a protocol has.
    """
    scores = {key: _Scores() for key in probes}
    for batches in epochs:
        active = {key: probe for key, probe in probes.items() if not probe.finished}
        cutters = {size: _Rebatcher(size) for size in {probe.protocol.batch_size for probe in active.values()}}
        for features, labels in batches:
            for size, cutter in cutters.items():
                _step_all(active, size, cutter.push(features, labels))
        for size, cutter in cutters.items():
            _step_all(active, size, cutter.rest())
        for (place, name), probe in active.items():
            probe.end_epoch()
            scores[place, name].add(probe, test[place], test_labels)
    if any(not probe.finished for probe in probes.values()):
        raise ValueError("there are fewer epochs of features than a protocol has")
    return {key: score.score() for key, score in scores.items()}


def _near(x: Tensor, device: torch.device) -> Tensor:
    """`x` on `device`, unless that is a GPU and `x` would take more than a quarter of its free memory."""
    if device.type == "cuda" and x.nbytes > torch.cuda.mem_get_info(device)[0] // 4:
        return x
    return x.to(device)


def steps(samples: int, protocol: Protocol) -> int:
    """Steps of an epoch over `samples` samples."""
    return ceil(samples / protocol.batch_size)


Batch = tuple[Mapping[Place, Tensor], Tensor]


class _Rebatcher:
    """Splits batches of any size into batches of one size."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: Batch | None = None

    def push(self, features: Mapping[Place, Tensor], labels: Tensor) -> Iterator[Batch]:
        """Add a batch; yields the full batches that are complete."""
        if self._kept is not None:
            kept, kept_labels = self._kept
            features = {place: torch.cat([kept[place], rows]) for place, rows in features.items()}
            labels = torch.cat([kept_labels, labels])
        full = len(labels) // self._size * self._size
        for start in range(0, full, self._size):
            yield _part(features, labels, slice(start, start + self._size))
        self._kept = _part(features, labels, slice(full, None)) if full < len(labels) else None

    def rest(self) -> Iterator[Batch]:
        """The smaller batch that is left at the end, if any."""
        if self._kept is not None:
            yield self._kept


def _part(features: Mapping[Place, Tensor], labels: Tensor, rows: slice) -> Batch:
    return {place: tensor[rows] for place, tensor in features.items()}, labels[rows]


def _step_all(probes: Mapping[tuple[Place, str], LinearProbe], size: int, batches: Iterable[Batch]) -> None:
    for features, labels in batches:
        for (place, _), probe in probes.items():
            if probe.protocol.batch_size == size:
                probe.step(features[place], labels)


def _optimizer(parameters: list[Tensor], protocol: Protocol) -> Optimizer:
    if protocol.optimizer == "adam":
        return Adam(parameters, protocol.lr, weight_decay=protocol.weight_decay)
    return SGD(
        parameters,
        protocol.lr,
        momentum=protocol.momentum,
        nesterov=protocol.nesterov,
        weight_decay=protocol.weight_decay,
    )
