"""On a CPU, the casts that autocast makes on CUDA.

Autocast has a list of operations that compute in float32 for each kind of device. CUDA's has layer norm, softmax, sums,
powers and others that the CPU's leaves in half precision. Autograd then keeps a float32 copy of their input, so what a
network keeps differs: for a layer of a Vision Transformer in bf16 by tens of percent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.library import _scoped_library
from torch.utils._pytree import tree_map

IN_FULL_PRECISION = (
    *("acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt", "sinh"),
    *("tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "softplus", "layer_norm", "native_layer_norm"),
    *("rms_norm", "group_norm", "norm.Scalar", "norm.ScalarOpt_dim", "cosine_similarity", "dist", "pdist", "renorm"),
    *("logsumexp", "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d"),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
)
"""Of ATen/autocast_mode.h, `AT_FORALL_FP32`: they are given float32."""

INTO_FULL_PRECISION = (
    *("softmax.int", "log_softmax.int", "cumprod", "cumsum", "linalg_vector_norm", "linalg_matrix_norm"),
    *("linalg_matrix_norm.str_ord", "sum", "sum.dim_IntList"),
)
"""`AT_FORALL_FP32_SET_OPT_DTYPE`: they are asked for float32, unless they were asked for another dtype."""

AUTOCAST = "AutocastCPU"


@contextmanager
def autocast_of_cuda() -> Iterator[None]:
    """In it both lists hold where `torch.autocast("cpu")` is on; what the list of the CPU has stays as it is."""
    with _scoped_library("aten", "IMPL") as library:
        for names, run in ((IN_FULL_PRECISION, _given_full), (INTO_FULL_PRECISION, _asked_for_full)):
            for name in names:
                if _is_free(name):
                    library.impl(name, partial(run, _overload(name)), AUTOCAST)
        yield


def _is_free(name: str) -> bool:
    qualified = f"aten::{name}"
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    known = torch._C._dispatch_has_kernel(qualified)
    return bool(known and has(qualified, "AutocastCUDA") and not has(qualified, AUTOCAST))


def _overload(name: str) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    operation: Callable[..., Any] = getattr(getattr(torch.ops.aten, packet), overload or "default")
    return operation


def _given_full(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with _without_autocast():
        args, kwargs = tree_map(lambda leaf: leaf.float() if _is_half(leaf) else leaf, (args, kwargs))
        return operation(*args, **kwargs)


def _asked_for_full(operation: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
    with _without_autocast():
        if _is_half(x) and kwargs.get("dtype") is None and not any(isinstance(value, torch.dtype) for value in args):
            kwargs["dtype"] = torch.float32
        return operation(x, *args, **kwargs)


def _is_half(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)


def _without_autocast() -> Any:
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, AUTOCAST)))
