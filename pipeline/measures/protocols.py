"""The papers' protocols for a linear classifier on frozen features: optimizer, epochs, batch and learning rate.

A learning rate is a function of the step, so that a protocol can be checked against its formula. None of them
standardises the features. All start the classifier alike, from N(0, 0.01) and biases of 0: so does the released
blockwise `evaluate.py`, and the other two sources say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from math import cos, pi
from types import MappingProxyType
from typing import Literal

INITIAL_STD = 0.01


@dataclass(frozen=True)
class Protocol:
    """How a linear classifier is fitted.

    Args:
        name: as in `evaluation.linear`.
        optimizer: `sgd` or `adam`.
        lr: the highest learning rate, of a batch of any size.
        epochs: passes over the training features.
        batch_size: samples a step; the last step of an epoch takes what is left.
        schedule: half a cosine that moves at every epoch or at every step, or one drop at a share of the epochs.
        final_lr: where the cosine ends.
        drop_at: share of the epochs after which the rate is divided by `drop`.
        drop: the divisor.
        momentum, nesterov: of SGD.
        weight_decay: on weights and biases.
    """

    name: str
    optimizer: Literal["sgd", "adam"]
    lr: float
    epochs: int
    schedule: Literal["cosine_by_epoch", "cosine_by_step", "drop"]
    _: KW_ONLY
    batch_size: int = 256
    final_lr: float = 0.0
    drop_at: float = 1.0
    drop: float = 10.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def lasting(self, epochs: int | None) -> Protocol:
        """The same squeezed or stretched to `epochs`, the schedule with it; None leaves it as it is."""
        return self if epochs is None else replace(self, epochs=epochs)

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """The rate of `step`, counted from 0 over all epochs."""
        epoch = step // steps_per_epoch
        if self.schedule == "drop":
            return self.lr / self.drop if epoch >= self.drop_at * self.epochs else self.lr
        progress = epoch / self.epochs if self.schedule == "cosine_by_epoch" else step / (self.epochs * steps_per_epoch)
        return self.final_lr + (self.lr - self.final_lr) * (1 + cos(pi * progress)) / 2


BLOCKWISE = Protocol("blockwise", "sgd", 0.1, 100, "cosine_by_epoch", weight_decay=1e-6)
"""Of blockwise SSL: the released `evaluate.py` with the values of `eval.sh`."""
BYOL = Protocol("byol", "sgd", 0.2, 90, "cosine_by_step", final_lr=1e-4, nesterov=True)
"""Of the BYOL reproduction: its probe script."""
LIDAR = Protocol("lidar", "adam", 0.01, 20, "drop", drop_at=15 / 20)
"""Of LiDAR (arXiv 2312.04000): 20 epochs, the rate divided by 10 after 15. We know of no batch size that it gives; it
is that of the other two here, so that all three can read the same batches."""

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({p.name: p for p in (BLOCKWISE, BYOL, LIDAR)})
"""By name; `quick`, which has no epochs, is `pipeline.measures.linear`."""
