"""A part of a network that is computed again in the backward pass, instead of keeping what it computed.

The second forward pass must give the bits of the first. Besides its input and weights it therefore needs what the first
one read and changed: buffers (batch norm moves its running statistics, which must not move twice), the statistics that
the replicas joined (which are kept, so nobody communicates twice) and random draws (whose key or generator state is
kept, not the draws).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.replicas import KeptMoments, ReplicaGroup

Function = Callable[[Tensor], Tensor]


class ForwardRecord:
    """What one forward pass through `modules` read and changed besides its input.

    Enter `first` around the pass itself, then `again` around a repetition of it and, where the repetition is
    differentiated, its backward pass.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        every = [module for root in modules for module in root.modules()]
        self._buffers = [b for module in every for b in module.buffers(recurse=False) if b.numel()]
        self._joining: list[Any] = [m for m in every if isinstance(getattr(m, "team", None), ReplicaGroup)]
        self._before: list[Tensor] = []
        self._groups = [KeptMoments.of(module.team) for module in self._joining]

    @contextmanager
    def first(self) -> Iterator[None]:
        """The pass that counts: buffers move, replicas communicate."""
        self._before = [buffer.clone() for buffer in self._buffers]
        with self._kept_moments():
            yield

    @contextmanager
    def again(self) -> Iterator[None]:
        """The same pass again: it starts from the same buffers, and leaves no trace in them.

        PyTorch may end a repetition by an exception as soon as it has what it needs.
        """
        for group in self._groups:
            group.rewind()
        now = [buffer.clone() for buffer in self._buffers]
        _overwrite(self._buffers, self._before)
        try:
            with self._kept_moments():
                yield
        finally:
            _overwrite(self._buffers, now)

    @contextmanager
    def _kept_moments(self) -> Iterator[None]:
        own = [module.team for module in self._joining]
        try:
            for module, group in zip(self._joining, self._groups, strict=True):
                module.team = group
            yield
        finally:
            for module, group in zip(self._joining, own, strict=True):
                module.team = group


def _overwrite(tensors: list[Tensor], values: list[Tensor]) -> None:
    # `.data`, because this happens during a backward pass: autograd has no need to hear of a value that comes back.
    if tensors:
        torch._foreach_copy_([tensor.data for tensor in tensors], values)


class Recomputation:
    """Runs parts of a network so that of each only the input is kept; keeps nothing where there are no gradients.

    Args:
        draws: they may draw from PyTorch's generators, whose state is then kept too.
    """

    def __init__(self, draws: bool) -> None:
        self._draws = draws

    def run(self, part: Function, x: Tensor, modules: Sequence[nn.Module]) -> Tensor:
        """`part(x)`, where `part` runs `modules`; `x` must not be overwritten afterwards."""
        if not torch.is_grad_enabled():
            return part(x)
        record = ForwardRecord(modules)
        output: Tensor = checkpoint(
            part,
            x,
            use_reentrant=False,
            preserve_rng_state=self._draws,
            context_fn=lambda: (record.first(), record.again()),
        )
        return output


class RepeatedForward:
    """A function that is first called without a graph, and later again with one.

    Args:
        function: draws from generators that it seeds alike in both calls, or not at all.
        modules: all that it runs.
    """

    def __init__(self, function: Function, modules: Iterable[nn.Module]) -> None:
        self._function, self._record = function, ForwardRecord(modules)

    def first(self, x: Tensor) -> Tensor:
        """The value of the function at `x`, without a graph."""
        with torch.no_grad(), self._record.first():
            return self._function(x)

    @contextmanager
    def again(self, x: Tensor) -> Iterator[Tensor]:
        """The same value with a graph; its backward pass belongs into the context."""
        with self._record.again():
            yield self._function(x)
