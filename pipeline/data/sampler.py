"""The images of each step, as a pure function of the step, so that a run can start at any step.

The order of an epoch is a permutation keyed by (seed, epoch). It sorts the raw words of a
counter-based generator, so it is the same on every machine.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.data.augment.keyed_draws import Purpose, keyed_bits
from pipeline.errors import ConfigError


class StepPlan:
    """Epochs, steps and the indices of every batch.

    Args:
        num_samples: images in the training set.
        batch_size: images per step.
        epochs: passes over the data set.
        drop_last: drop the smaller batch at the end of an epoch.
        seed: of the run.
        max_steps: stop after this many steps; None runs all epochs.
        repeats: number of times that all epochs run: once per block that learns in sequential blockwise training.

    Raises:
        ConfigError: an epoch has no full batch, or would end with a batch of a single image.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        epochs: int,
        *,
        drop_last: bool,
        seed: int,
        max_steps: int | None = None,
        repeats: int = 1,
    ) -> None:
        check_batch_size(num_samples, batch_size, drop_last)
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.steps_per_epoch = num_samples // batch_size if drop_last else math.ceil(num_samples / batch_size)
        planned = epochs * self.steps_per_epoch
        self.total_steps = repeats * (planned if max_steps is None else min(planned, max_steps))
        self._cached: tuple[int, NDArray[np.int64]] | None = None

    @classmethod
    def of(cls, config: Config, num_samples: int) -> StepPlan:
        """The plan of a run over `num_samples` images."""
        data, train = config.data, config.train
        repeats = len(config.learners) if config.mode == "sequential" else 1
        return cls(
            num_samples,
            data.batch_size,
            train.epochs,
            drop_last=data.drop_last,
            seed=config.seed,
            max_steps=train.max_steps,
            repeats=repeats,
        )

    def batch(self, step: int) -> tuple[int, NDArray[np.int64]]:
        """The epoch of `step`, counted from 0 like the step, and the indices of its images, `[B]`."""
        epoch, start = self._place(step)
        return epoch, self._order(epoch)[start : start + self.batch_size]

    def rows(self, step: int) -> int:
        """Number of images in the batch of `step`, without computing their indices."""
        return min(self.batch_size, self.num_samples - self._place(step)[1])

    def _place(self, step: int) -> tuple[int, int]:
        """The epoch of `step`, and the position of the batch in its order."""
        if not 0 <= step < self.total_steps:
            raise IndexError(f"step {step} is outside of the {self.total_steps} planned")
        epoch, batch = divmod(step, self.steps_per_epoch)
        return epoch, batch * self.batch_size

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._cached is None or self._cached[0] != epoch:
            bits = keyed_bits(self.seed, Purpose.ORDER, (0, 0, epoch), self.num_samples)
            self._cached = (epoch, np.argsort(bits, kind="stable").astype(np.int64, copy=False))
        return self._cached[1]


def check_batch_size(num_samples: int, batch_size: int, drop_last: bool) -> None:
    """Raise `ConfigError` if the data set cannot be split into batches of this size."""
    if batch_size > num_samples:
        raise ConfigError(
            "data.batch_size",
            f"a batch of {batch_size} is more than the {num_samples} images of the training set",
            f"Give at most {num_samples}",
        )
    if not drop_last and num_samples % batch_size == 1:
        raise ConfigError(
            "data.drop_last",
            f"{num_samples} images in batches of {batch_size} leave a last batch of one image, "
            "and batch norm needs two",
            "Set data.drop_last=true or change data.batch_size",
        )
