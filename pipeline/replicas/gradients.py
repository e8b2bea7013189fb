"""Gradients summed over the replicas while the backward pass still computes others.

A backward comes to the last layer first. Parameters are therefore put into buckets from the last to the first; as
soon as a bucket has all its gradients, they are summed over the replicas beside the rest of the backward. Where a step
has several backward passes that add to the same gradients, the sums begin in the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.errors import TrainingError
from pipeline.replicas.team import PendingSum, ReplicaGroup

BUCKET_BYTES = 25 * 2**20
"""Large enough to use the bandwidth of a network, small enough that the first sum starts early."""


class GradientSum:
    """Replaces every `p.grad` by its sum over the replicas.

    A parameter that has a gradient on some replicas only counts as zero on the others; where it has none on any, it
    has none afterwards, as in one process.

    Args:
        parameters: in the order of the forward; those that want no gradient are left alone.
        team: of two replicas or more.
        bucket_bytes: size at which a bucket is full.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], team: ReplicaGroup, bucket_bytes: int = BUCKET_BYTES
    ) -> None:
        self.buckets = [_Bucket(part, team) for part in _parts(list(parameters), bucket_bytes)]
        self._home = {id(p): bucket for bucket in self.buckets for p in bucket.parameters}
        self._started, self._held = 0, False
        for bucket in self.buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(self._arrived)  # type: ignore[no-untyped-call]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Around a backward pass after which another one adds to the same gradients: none of them leaves yet."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def finish(self) -> None:
        """Wait until every gradient of the last backward pass is the sum.

        Raises:
            ReplicaLost: another replica does not answer.
        """
        self._start(len(self.buckets))
        for bucket in self.buckets:
            bucket.finish()
        self._started = 0

    def _arrived(self, parameter: Tensor) -> None:
        if self._held:
            return
        self._home[id(parameter)].arrived(parameter)
        # In their order, though a later one may be complete before: sums must be the same ones on all replicas.
        ready = self._started
        while ready < len(self.buckets) and self.buckets[ready].complete:
            ready += 1
        self._start(ready)

    def _start(self, until: int) -> None:
        for bucket in self.buckets[self._started : until]:
            bucket.start()
        self._started = until


class _Bucket:
    """Parameters whose gradients are summed together, followed by one flag for each: whether it has a gradient."""

    def __init__(self, parameters: list[nn.Parameter], team: ReplicaGroup) -> None:
        self.parameters, self.team = parameters, team
        sizes = [p.numel() for p in parameters]
        self._flat = parameters[0].detach().new_empty(sum(sizes) + len(sizes))
        *parts, self._present = torch.split(self._flat, [*sizes, len(sizes)])
        self._parts = [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]
        self._arrived: set[int] = set()
        self._pending: PendingSum | None = None

    @property
    def complete(self) -> bool:
        return len(self._arrived) == len(self.parameters)

    def arrived(self, parameter: Tensor) -> None:
        if self._pending is not None:
            raise TrainingError(
                f"a parameter of shape {list(parameter.shape)} was given a second gradient in one backward, after "
                "its sum over the replicas had begun; does the network use torch.utils.checkpoint with "
                "use_reentrant=True? Give use_reentrant=False, or replicas=1 for this stage"
            )
        self._arrived.add(id(parameter))

    @torch.no_grad()
    def start(self) -> None:
        pairs = [(part, p.grad) for part, p in zip(self._parts, self.parameters, strict=True) if p.grad is not None]
        if len(pairs) == len(self.parameters):
            self._present.fill_(1)
        else:
            self._flat.zero_()
            self._present.copy_(torch.tensor([p.grad is not None for p in self.parameters]))
        if pairs:
            torch._foreach_copy_([part for part, _ in pairs], [gradient for _, gradient in pairs])
        self._pending = self.team.start_sum(self._flat)

    @torch.no_grad()
    def finish(self) -> None:
        assert self._pending is not None
        self._pending.wait()
        self._pending = None
        self._arrived.clear()
        for number, (part, parameter) in enumerate(zip(self._parts, self.parameters, strict=True)):
            if parameter.grad is not None:
                parameter.grad.copy_(part)
            elif self._present[number] > 0:
                parameter.grad = part.clone()


def _parts(parameters: list[nn.Parameter], bucket_bytes: int) -> Iterator[list[nn.Parameter]]:
    """From the last to the first, as many together as fill a bucket; one dtype and one device each."""
    part: list[nn.Parameter] = []
    filled = 0
    for p in reversed([p for p in parameters if p.requires_grad]):
        alike = not part or (p.dtype, p.device) == (part[0].dtype, part[0].device)
        if part and (filled >= bucket_bytes or not alike):
            yield part
            part, filled = [], 0
        part.append(p)
        filled += p.numel() * p.element_size()
    if part:
        yield part
