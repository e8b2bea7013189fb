"""The papers' protocols for a linear classifier on frozen features: optimizer, epochs, batch and learning rate.

The learning rate is a function of the step, so that a protocol can be checked against its formula. No protocol
standardises the features. All initialise the weights from N(0, 0.01) and the biases with 0, as the released blockwise
`evaluate.py` does; the other two sources do not mention it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import cos, pi
from types import MappingProxyType
from typing import Literal

INITIAL_STD = 0.01


@dataclass(frozen=True)
class Protocol:
    """The hyperparameters of a linear classifier.

    Args:
        name: as in `evaluation.linear`.
        optimizer: `sgd` or `adam`.
        lr: the highest learning rate, of a batch of any size.
        epochs: passes over the training features.
        batch_size: samples per step; the last step of an epoch takes the rest.
        schedule: half a cosine, updated at every epoch or step, or one drop after a share of the epochs.
        final_lr: learning rate at the end of the cosine.
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
    batch_size: int = 256
    final_lr: float = 0.0
    drop_at: float = 1.0
    drop: float = 10.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def with_epochs(self, epochs: int | None) -> Protocol:
        """The protocol with another number of epochs, which its schedule spans; None does not change it."""
        return self if epochs is None else replace(self, epochs=epochs)

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of `step`, counted from 0 over all epochs."""
        epoch = step // steps_per_epoch
        if self.schedule == "drop":
            return self.lr / self.drop if epoch >= self.drop_at * self.epochs else self.lr
        progress = epoch / self.epochs if self.schedule == "cosine_by_epoch" else step / (self.epochs * steps_per_epoch)
        return self.final_lr + (self.lr - self.final_lr) * (1 + cos(pi * progress)) / 2


BLOCKWISE = Protocol("blockwise", "sgd", 0.1, 100, "cosine_by_epoch", weight_decay=1e-6)
"""The protocol of blockwise SSL: the released `evaluate.py` with the values of `eval.sh`."""
BYOL = Protocol("byol", "sgd", 0.2, 90, "cosine_by_step", final_lr=1e-4, nesterov=True)
"""The protocol of the BYOL reproduction's probe script."""
LIDAR = Protocol("lidar", "adam", 0.01, 20, "drop", drop_at=15 / 20)
"""The protocol of LiDAR (arXiv 2312.04000): 20 epochs, the rate divided by 10 after 15. The paper gives no batch size;
that of the other two is used, so that all three can share batches."""

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({p.name: p for p in (BLOCKWISE, BYOL, LIDAR)})
"""The protocols by name; `quick`, which has no epochs, is `pipeline.measures.linear`."""
