"""Counts the bytes of all tensors that are alive while code runs, without running its kernels.

Under `FakeTensorMode` operations compute shapes alone. Each result is a tensor whose storage has a size and no memory;
this mode sees every one of them made, and is called when the last reference to it goes. What PyTorch's allocator would
hand out at the same moment is their sum, but for what kernels allocate and free within themselves.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tag, Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Operation = Callable[..., Any]


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, every storage that an operation returns counts until it is freed.

    A value that Python asks of a tensor (`.item()`, `bool(...)`) has no number here. It is answered with 1, which is a
    finite loss and a count that may divide; and with 0 where it says how many gradients overflowed.

    Args:
        workspaces: count what kernels allocate and free within themselves, as those of this kind of CPU do.
    """

    def __init__(self, workspaces: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._workspaces = workspaces
        self.now = 0
        """Bytes that are alive."""
        self.peak = 0
        """The most there were since `begin`."""
        self.peak_moment = ""
        """What `moment` was then."""
        self.moment = ""
        """What the code is at, for whoever reads `peak_moment`."""
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._overflows: set[int] = set()
        """Storages of numbers of gradients that are not finite."""

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
        args: Sequence[Any] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operation, and count what it returns."""
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        if func is torch.ops.aten._local_scalar_dense.default:
            return self._answer(args[0])
        if func is torch.ops.aten._amp_foreach_non_finite_check_and_unscale_.default:
            self._overflows.add(args[1].untyped_storage()._cdata)
        if _only_overwrites(func):
            return args[0] if _returns_first(func) else None
        result: object = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        if self._workspaces:
            self._reach(self.now + workspace(func, args, result))
        return result

    def _answer(self, tensor: Tensor) -> bool | int | float:
        if tensor.dtype == torch.bool or tensor.untyped_storage()._cdata in self._overflows:
            return False
        return 1.0 if tensor.is_floating_point() else 1

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
        self._reach(self.now)

    def _reach(self, size: int) -> None:
        if size > self.peak:
            self.peak, self.peak_moment = size, self.moment


@cache
def _only_overwrites(func: Any) -> bool:
    """Whether it changes the values of its first argument, which it returns, or those of lists, and nothing else."""
    schema = func._schema
    if not schema.name.startswith("aten::") or not schema.name.endswith("_") or Tag.inplace_view in func.tags:
        return False
    return schema.name not in ("aten::resize_", "aten::set_") and (
        not schema.returns or (len(schema.returns) == 1 and schema.returns[0].alias_info is not None)
    )


@cache
def _returns_first(func: Any) -> bool:
    return bool(func._schema.returns)


def workspace(func: Operation, args: Sequence[Any], result: Any) -> int:
    """Bytes that a kernel has, at its worst moment, beyond what it returns, on an x86 CPU with AVX-512.

    oneDNN computes convolutions in a layout of its own, and copies what comes and goes, unless it is laid out channels
    last: inputs and weights before, the output after. The backward does so first for the gradient of the input, then
    for that of the weights. The backward of batch norm has a second gradient of the input for a moment, and that of
    layer norm a copy of what is not contiguous.
    """
    if func is torch.ops.aten.native_batch_norm_backward.default:
        return int(result[0].nbytes)
    if func is torch.ops.aten.native_layer_norm_backward.default:
        return sum(tensor.nbytes for tensor in args[:2] if not tensor.is_contiguous())
    if func is torch.ops.aten.convolution.default and _is_copied(args[0]):
        return int(max(args[0].nbytes + args[1].nbytes, result.nbytes))
    if func is torch.ops.aten.convolution_backward.default and _is_copied(args[1]):
        half: bool = args[1].dtype.itemsize < 4  # then gradients are copied once more, those of the weights from fp32
        gradient, x, weight = (int(tensor.nbytes) for tensor in args[:3])
        to_input, to_weight = (0 if tensor is None else int(tensor.nbytes) for tensor in result[:2])
        return max(x + gradient + half * 2 * weight, gradient + weight - to_weight, (1 + half) * to_input - to_weight)
    return 0


def _is_copied(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous()
