"""Counts the bytes of all tensors that are alive while code runs, without running its kernels.

Under `FakeTensorMode` operations compute shapes alone. Each result is a tensor whose storage has a size and no memory;
this mode sees every one of them made, and is called when the last reference to it goes. What PyTorch's allocator would
hand out at the same moment is their sum, but for what kernels allocate and free within themselves.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, reduce
from typing import Any

import torch
from torch import Tag, Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Operation = Callable[..., Any]
_READ_EVERY_PRECISION = (torch.ops.aten.copy_.default, torch.ops.aten.where.self)
"""Elementwise operations whose operands are not brought to one precision: one is a target, or a condition."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, every storage that an operation returns counts until it is freed.

    A value that Python asks of a tensor (`.item()`, `bool(...)`) has no number here. It is answered with 1, which is a
    finite loss and a count that may divide; and with 0 where it says how many gradients overflowed.

    Args:
        workspaces: count what kernels allocate and free within themselves, as those of this kind of CPU do.
        casts: count copies of what an operation is given in several precisions, which a CPU makes and a GPU does not.
    """

    def __init__(self, workspaces: bool = True, casts: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._workspaces, self._casts = workspaces, casts
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
        copies = cast_copies(func, args) if self._casts else 0
        if _only_overwrites(func):
            self.reach(copies)
            return args[0] if _returns_first(func) else None
        result: object = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        kernel = workspace(func, args, result) if self._workspaces else 0
        self.reach(copies + kernel)
        return result

    def reach(self, beside: int) -> None:
        """For a moment there are so many bytes beside those that are alive."""
        self._reach(self.now + beside)

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


def cast_copies(func: Any, args: Sequence[Any]) -> int:
    """Bytes of the operands that are not in the precision that an elementwise operation computes in."""
    if Tag.pointwise not in func.tags or func in _READ_EVERY_PRECISION:
        return 0
    operands = [leaf for leaf in args if isinstance(leaf, Tensor) and leaf.dim() > 0]
    if len({operand.dtype for operand in operands}) < 2:
        return 0
    computed = reduce(torch.promote_types, (operand.dtype for operand in operands))
    return sum(operand.numel() * computed.itemsize for operand in operands if operand.dtype != computed)


def workspace(func: Operation, args: Sequence[Any], result: Any) -> int:
    """Bytes that a kernel has, at its worst moment, beyond what it returns, on an x86 CPU with AVX-512.

    oneDNN computes convolutions in a layout of its own, and copies what comes and goes, unless it is laid out channels
    last: inputs and weights before, the output after. The backward does so first for the gradient of the input, of
    which a convolution with a stride has a third one, then for that of the weights. Half precision that the processor
    lacks is computed by PyTorch itself, from a matrix of all patches. The backward of batch norm has a second gradient
    of the input for a moment, and that of layer norm a copy of what is not contiguous.
    """
    if func is torch.ops.aten.native_batch_norm_backward.default:
        return int(result[0].nbytes)
    if func is torch.ops.aten.native_layer_norm_backward.default:
        return sum(tensor.nbytes for tensor in args[:2] if not tensor.is_contiguous())
    if func is torch.ops.aten.convolution.default and args[0].dim() == 4:
        x, weight, stride, padding = args[0], args[1], args[3], args[4]
        if not _onednn_computes(x.dtype):
            return _patches(x, weight, result, stride, padding)
        return int(max(x.nbytes + weight.nbytes, result.nbytes)) if x.is_contiguous() else 0
    if func is torch.ops.aten.convolution_backward.default and args[1].dim() == 4:
        gradient, x, weight, stride, padding = (args[number] for number in (0, 1, 2, 4, 5))
        if not _onednn_computes(x.dtype):
            return _patches(x, weight, gradient, stride, padding)
        return _gradients_of_convolution(gradient, x, weight, stride, result) if x.is_contiguous() else 0
    return 0


def _gradients_of_convolution(gradient: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], result: Any) -> int:
    half: bool = x.dtype.itemsize < 4  # then gradients of the weights are copied once more, from fp32
    to_input, to_weight = (0 if tensor is None else int(tensor.nbytes) for tensor in result[:2])
    return max(
        x.nbytes + gradient.nbytes + half * 2 * weight.nbytes,
        gradient.nbytes + weight.nbytes - to_weight,
        (1 + (max(stride) > 1)) * to_input - to_weight,
    )


def _patches(x: Tensor, weight: Tensor, output: Tensor, stride: Sequence[int], padding: Sequence[int]) -> int:
    """Bytes of what every output is computed from, side by side; that of a 1x1 convolution is its input."""
    if weight.shape[2:].numel() == 1 and max(stride) == 1 and max(padding) == 0:
        return 0
    return len(x) * weight.shape[1:].numel() * output.shape[2:].numel() * x.dtype.itemsize


@cache
def _onednn_computes(dtype: torch.dtype) -> bool:
    """Whether oneDNN has kernels of this precision for this processor."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype != torch.float16 or bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
