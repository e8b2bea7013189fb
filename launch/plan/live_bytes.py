"""Counts the bytes of all tensors that are alive while code runs, without running its kernels.

Under `FakeTensorMode` operations compute shapes alone. Each result is a tensor whose storage has a size and no memory;
this mode sees every one of them made, and is called when the last reference to it goes. What PyTorch's allocator would
hand out at the same moment is their sum, but for what kernels allocate and free within themselves.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Operation = Callable[..., Any]


class LiveBytes(TorchDispatchMode):
    """While entered, every storage that an operation returns counts until it is freed.

    A value that Python asks of a tensor (`.item()`, `bool(...)`) has no number here; it is answered with 0, which
    stands for a finite loss and for gradients that did not overflow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        """Bytes that are alive."""
        self.peak = 0
        """The most there were since `begin`."""
        self.peak_moment = ""
        """What `moment` was then."""
        self.moment = ""
        """What the code is at, for whoever reads `peak_moment`."""
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def begin(self) -> None:
        """Measure the peak from here on."""
        self.peak, self.peak_moment = self.now, self.moment

    def adopt(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that were made before; returns how many bytes they add."""
        before = self.now
        for tensor in tensors:
            self._count(tensor)
        return self.now - before

    def __torch_dispatch__(
        self,
        func: Operation,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operation, and count what it returns."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return _zero(args[0])
        result: object = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = storage.nbytes()

        def freed(_: weakref.ref[torch.UntypedStorage]) -> None:
            self.now -= size
            self._alive.pop(key, None)

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        if self.now > self.peak:
            self.peak, self.peak_moment = self.now, self.moment


def _zero(tensor: object) -> bool | int | float:
    assert isinstance(tensor, Tensor)
    if tensor.dtype == torch.bool:
        return False
    return 0.0 if tensor.is_floating_point() else 0
