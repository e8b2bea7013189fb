"""The replicas of one stage from the side of one of them: which rows it has, and its collectives.

Nothing here has a gradient. Sums are taken over gathered tensors, in the order of the replicas, so that every replica
and every run adds the same numbers in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.errors import TrainingError, first_line

Moments = tuple[Tensor, Tensor]
"""Mean and biased variance, of one shape."""


class ReplicaLost(TrainingError):
    """Another replica of the stage died, or did not answer within the group's time limit."""


@dataclass(frozen=True)
class ReplicaGroup:
    """The processes that share the batch of one stage; replica r of R has the rows `[r * N / R, (r + 1) * N / R)`.

    Every method that communicates must be called by all replicas, in the same order.

    Args:
        rank: this replica, counted from 0.
        size: R; with one replica nothing is communicated.
        group: for collectives that a forward or a backward pass waits for.
        gradient_group: of the same processes, for sums that run beside a backward pass: within one group the order
            of all collectives is fixed, so these must not queue behind those.
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None
    gradient_group: dist.ProcessGroup | None = None

    def rows(self, whole: Tensor) -> Tensor:
        """This replica's share of `[N, ...]`, a view of it: `[N / R, ...]`."""
        if self.size == 1:
            return whole
        count = len(whole) // self.size
        return whole.narrow(0, self.rank * count, count)

    def whole_like(self, x: Tensor) -> Tensor:
        """For `[n, ...]`, a tensor of the shape `[n * R, ...]`, the dtype and the device of the whole; no values."""
        if self.size == 1:
            return x
        return x.new_empty(1).expand(len(x) * self.size, *x.shape[1:])

    def all_gather(self, x: Tensor) -> Tensor:
        """`x` of every replica, in their order: `[R, *x.shape]`.

        Raises:
            ReplicaLost: one of them does not answer.
        """
        x = x.detach().contiguous()
        every = x.new_empty((self.size, *x.shape))
        with _answered():
            dist.all_gather(list(every.unbind(0)), x, group=self.group)
        return every

    def total(self, x: Tensor) -> Tensor:
        """The sum of `x` over the replicas; raises as `all_gather`."""
        return self.all_gather(x).sum(dim=0) if self.size > 1 else x

    def moments(self, own: Callable[[], Moments]) -> Moments:
        """Mean and biased variance of the rows of all replicas, from what `own` gives for this replica's rows.

        Every replica must have as many rows. The variances of the parts and the variance of their means are added
        (Chan et al. 1983, equation 2.1), which keeps the digits that a difference of squares would lose.

        Raises:
            ReplicaLost: as `all_gather`.
        """
        if self.size == 1:
            return own()
        means, variances = self.all_gather(torch.stack(own())).unbind(1)
        mean = means.mean(dim=0)
        return mean, variances.mean(dim=0) + (means - mean).square().mean(dim=0)

    def broadcast(self, x: Tensor, source: int) -> None:
        """Overwrite `x`, which is contiguous, with that of replica `source`; raises as `all_gather`."""
        with _answered():
            dist.broadcast(x, group=self.group, group_src=source)

    def start_sum(self, x: Tensor) -> PendingSum:
        """Begin to replace `x`, which is contiguous, by its sum over the replicas; nothing may use it meanwhile.

        Raises:
            ReplicaLost: one of them does not answer.
        """
        with _answered():
            work = dist.all_reduce(x, group=self.gradient_group, async_op=True)
        assert work is not None
        return PendingSum(work)


@dataclass(frozen=True)
class KeptMoments(ReplicaGroup):
    """The same group, which keeps the moments of a forward pass: repeated after `rewind`, it asks nobody again.

    Args:
        inner: the group, which communicates.
        kept: the moments, in the order in which they were asked for.
    """

    inner: ReplicaGroup = field(default_factory=ReplicaGroup)
    kept: list[Moments] = field(default_factory=list)
    repeats: list[Moments] = field(default_factory=list)
    """What a repetition has not asked for yet, the next one last."""

    @classmethod
    def of(cls, group: ReplicaGroup) -> KeptMoments:
        """Of `group`, with nothing kept yet."""
        return cls(**{part.name: getattr(group, part.name) for part in fields(ReplicaGroup)}, inner=group)

    def all_gather(self, x: Tensor) -> Tensor:
        """See `ReplicaGroup.all_gather`."""
        return self.inner.all_gather(x)

    def broadcast(self, x: Tensor, source: int) -> None:
        """See `ReplicaGroup.broadcast`."""
        self.inner.broadcast(x, source)

    def start_sum(self, x: Tensor) -> PendingSum:
        """See `ReplicaGroup.start_sum`."""
        return self.inner.start_sum(x)

    def moments(self, own: Callable[[], Moments]) -> Moments:
        """See `ReplicaGroup.moments`."""
        if self.repeats:
            return self.repeats.pop()
        self.kept.append(self.inner.moments(own))
        return self.kept[-1]

    def rewind(self) -> None:
        """The forward pass is about to be repeated, from its beginning."""
        self.repeats[:] = self.kept[::-1]


class PendingSum:
    """A sum that has begun."""

    def __init__(self, work: dist.Work) -> None:
        self._work = work

    def wait(self) -> None:
        """Wait for the sum, on a GPU for the kernels that follow; raises `ReplicaLost`."""
        with _answered():
            self._work.wait()


SOLO = ReplicaGroup()
"""A stage of one process."""


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ReplicaLost(f"another replica of this stage does not answer ({first_line(error)[:200]})") from error
