"""What a device is given to do by a piece of a step: its operations, each with what it computes, reads and writes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_leaves

from launch.plan.live_bytes import LiveBytes
from workers.stage.flops import FORMULAS


class KernelCall(NamedTuple):
    """One call of a kernel.

    Args:
        flops: a multiplication and an addition are two; 0 for all but products of matrices and convolutions, whose
            time is that of what they read and write.
        bytes: read and written.
        half: whether it computes on numbers of two bytes.
    """

    flops: int
    bytes: int
    half: bool


KernelCalls = Counter[KernelCall]
"""How often each operation is called."""


def flops_of(calls: KernelCalls) -> int:
    """Of all operations."""
    return sum(call.flops * times for call, times in calls.items())


class CallRecorder(LiveBytes):  # type: ignore[no-untyped-call]
    """Notes every operation under what the code is at (`moment`), besides the bytes that are alive.

    Args:
        casts: see `LiveBytes`.
    """

    def __init__(self, casts: bool = True) -> None:
        super().__init__(workspaces=False, casts=casts)
        self.calls: defaultdict[str, KernelCalls] = defaultdict(Counter)
        """By moment, without the number of the stage."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        """Run one operation, and note it."""
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if not _is_free(func):
            formula = FORMULAS.get(func._overloadpacket)
            flops = 0 if formula is None else int(formula(*args, **(kwargs or {}), out_val=result))
            moved = _traffic(func, args, kwargs or {}, result)
            self.calls[self.moment.partition(" of stage ")[0]][KernelCall(flops, moved, _is_half(args))] += 1
        return result


_WITHOUT_KERNEL = {
    *("aten::detach", "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty"),
    *("aten::new_empty_strided", "aten::_unsafe_view", "aten::_local_scalar_dense", "prim::device"),
}
_OVERWRITING = {"aten::copy_", "aten::fill_", "aten::zero_", "aten::normal_", "aten::uniform_", "aten::bernoulli_"}
"""They do not read what they change."""
_READ_TWICE = {
    **dict.fromkeys(("aten::native_batch_norm", "aten::_native_batch_norm_legit"), (0,)),
    "aten::native_batch_norm_backward": (0, 1),
}
"""Numbers of the arguments that are read for sums over all of them, and once more for what follows from these."""


@cache
def _is_free(func: Any) -> bool:
    return bool(func.is_view) or func._schema.name in _WITHOUT_KERNEL


@cache
def _changed(func: Any) -> frozenset[int]:
    """Numbers of the arguments that it writes into."""
    arguments = enumerate(func._schema.arguments)
    return frozenset(number for number, each in arguments if each.alias_info is not None and each.alias_info.is_write)


def _traffic(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Bytes that it reads and writes."""
    changed, name = _changed(func), func._schema.name
    again = _READ_TWICE.get(name, ())
    moved = 0 if changed else _size(result)
    for number, argument in enumerate(args):
        passes = 1 + (number in changed and name not in _OVERWRITING) + (number in again)
        moved += passes * _size(argument)
    return moved + _size(list(kwargs.values()))


def _size(values: Any) -> int:
    """Bytes of all tensors; what is expanded is in memory once."""
    tensors = [values] if isinstance(values, Tensor) else tree_leaves(values)
    return sum(
        min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())
        for tensor in tensors
        if isinstance(tensor, Tensor)
    )


def _is_half(args: Sequence[Any]) -> bool:
    first = next((argument for argument in args if isinstance(argument, Tensor)), None)
    return first is not None and first.is_floating_point() and first.itemsize == 2
