"""Which operations repeat on CUDA: an entry for every operator that a run may call, with its source. No torch here.

`docs/reference/determinism.md` shows the same as a table, which a test compares to this one. The entries are about one
GPU, one driver and one set of library versions: none of the libraries promises more. They were read, not measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Repeats = Literal["always", "asked", "strict", "never", "unknown"]
MEANINGS: dict[Repeats, str] = {
    "always": "yes",
    "asked": "`strict`, `warn`",
    "strict": "`strict` only",
    "never": "no: `strict` raises",
    "unknown": "unknown",
}
"""The levels of `determinism.level` with which an operation repeats, as the table says it."""
SOURCES = {
    "PyTorch 1": "https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html",
    "PyTorch 2": "https://docs.pytorch.org/docs/stable/notes/randomness.html",
    "attention": "https://github.com/pytorch/pytorch/pull/182551",
    "cuBLAS": "https://docs.nvidia.com/cuda/cublas/index.html#results-reproducibility",
    "cuDNN": "https://docs.nvidia.com/deeplearning/cudnn/latest/developer/misc.html",
    "cuSOLVER": "https://docs.nvidia.com/cuda/cusolver/index.html",
    "NCCL 1": "https://github.com/NVIDIA/nccl/issues/1497",
    "NCCL 2": "https://github.com/pytorch/pytorch/pull/191782",
}
SILENT = ("prim", "profiler")
"""Namespaces whose operators compute nothing."""


@dataclass(frozen=True)
class OperatorGroup:
    """Whether a group of operators repeats.

    Args:
        kernels: what they are, in words.
        operators: their names in ATen, without overloads, and without the marks of what works in place or on lists.
        repeats: with which levels.
        why: a sentence.
        sources: keys of `SOURCES`.
    """

    kernels: str
    operators: str
    repeats: Repeats
    why: str
    sources: tuple[str, ...]


OPERATORS = (
    OperatorGroup(
        "views, copies, new tensors",
        "_local_scalar_dense _pin_memory _to_copy _unsafe_view alias arange as_strided cat clone contiguous copy "
        "detach diagonal empty empty_like empty_strided expand equal eye fill flip full full_like is_pinned "
        "lift_fresh narrow new_empty new_empty_strided new_full new_ones new_zeros ones ones_like permute "
        "promote_types record_stream repeat reshape resize roll scalar_tensor select set slice split "
        "split_with_sizes squeeze stack t transpose unbind unfold unsqueeze view zero zeros zeros_like",
        "always",
        "nothing is added up",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "gradients of views",
        "diagonal_backward select_backward slice_backward",
        "always",
        "zeros, into which each element is copied once",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "element by element, also the optimizers",
        "abs add addcdiv addcmul bitwise_and bitwise_not bitwise_or clamp clamp_max clamp_min cos div eq exp floor "
        "ge gelu gelu_backward gt isfinite isnan le lerp log log1p logical_and logical_not lt masked_fill maximum "
        "minimum mul ne neg pow reciprocal relu remainder round rsqrt rsub sigmoid sign sin special_entr sqrt sub "
        "tanh threshold_backward where _fused_adam _fused_adamw _fused_sgd",
        "always",
        "one thread computes an element; `torch.optim` and LARS consist of these and of norms",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "sums, means, extremes and norms within a tensor",
        "all amax amin any argmax argmin linalg_vector_norm max mean min norm std sum var var_mean",
        "always",
        "the order of additions follows from the shape; not on PyTorch's list",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "convolutions",
        "convolution convolution_backward cudnn_convolution _conv_depthwise2d",
        "asked",
        "cuDNN's gradients by atomic additions are not taken, and `cudnn.benchmark` is off, so that the choice is "
        "the same in every run; `off` turns it on",
        ("PyTorch 1", "PyTorch 2", "cuDNN"),
    ),
    OperatorGroup(
        "products of matrices",
        "addmm addmv baddbmm bmm dot mm mv",
        "asked",
        "cuBLAS promises equal bits on one architecture and number of SMs; with several streams only with "
        "`CUBLAS_WORKSPACE_CONFIG`, which `strict` and `warn` set",
        ("cuBLAS", "PyTorch 1"),
    ),
    OperatorGroup(
        "batch norm",
        "cudnn_batch_norm cudnn_batch_norm_backward native_batch_norm native_batch_norm_backward "
        "_native_batch_norm_legit batch_norm_backward _batch_norm_with_update",
        "always",
        "not among cuDNN's exceptions, and PyTorch's own kernels are not on its list",
        ("cuDNN", "PyTorch 1"),
    ),
    OperatorGroup(
        "layer norm",
        "native_layer_norm native_layer_norm_backward",
        "always",
        "not on PyTorch's list",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "max pooling of maps",
        "max_pool2d_with_indices max_pool2d_with_indices_backward",
        "always",
        "PyTorch's own kernel, not cuDNN's: each element collects its gradients; only the three-dimensional one "
        "is on the list",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "pooling of heads, by means of slices",
        "avg_pool2d avg_pool2d_backward",
        "always",
        "`gsp` and `lsp` take means; `avg_pool2d`, in networks of users, is not on PyTorch's list",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "adaptive pooling",
        "_adaptive_avg_pool2d _adaptive_avg_pool2d_backward adaptive_max_pool2d adaptive_max_pool2d_backward",
        "never",
        "the gradient is added up atomically; none of our networks uses it, since to one cell it is a mean",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "attention as products of matrices",
        "_safe_softmax _softmax _softmax_backward_data",
        "asked",
        "the products are cuBLAS's; the softmax goes row by row",
        ("attention", "cuBLAS"),
    ),
    OperatorGroup(
        "attention in one kernel",
        "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_backward "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_efficient_attention_backward "
        "_flash_attention_forward _flash_attention_backward _efficient_attention_forward "
        "_efficient_attention_backward _fused_sdp_choice",
        "strict",
        "the backward passes of FlashAttention and of the memory-efficient one add atomically, unless PyTorch's "
        "mode is on without `warn_only`",
        ("attention",),
    ),
    OperatorGroup(
        "attention of cuDNN",
        "_scaled_dot_product_cudnn_attention _scaled_dot_product_cudnn_attention_backward",
        "strict",
        "not chosen with `strict`; `warn` allows it",
        ("attention",),
    ),
    OperatorGroup(
        "losses",
        "_log_softmax _log_softmax_backward_data mse_loss mse_loss_backward nll_loss_backward nll_loss_forward",
        "always",
        "of `[B, classes]`; on PyTorch's list is only `nll_loss2d`, of maps",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "indexing, scattering",
        "index index_put _index_put_impl scatter scatter_add index_add index_copy gather index_select "
        "scatter_reduce embedding embedding_dense_backward",
        "asked",
        "atomic additions are replaced by sorted ones; `scatter_reduce` by products raises",
        ("PyTorch 1", "PyTorch 2"),
    ),
    OperatorGroup(
        "cumulative sums",
        "cumsum",
        "asked",
        "a scan in one order; not used in training",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "sorting, the largest",
        "sort topk",
        "always",
        "nothing is added up; which of equal values comes first is settled by a stable sort where it matters",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "interpolation, padding, without gradients",
        "_upsample_bilinear2d_aa _upsample_bicubic2d_aa upsample_bilinear2d upsample_bicubic2d upsample_nearest2d "
        "replication_pad2d reflection_pad2d constant_pad_nd",
        "always",
        "augmentation only: forward, each pixel is computed by one thread",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "gradients of interpolation",
        "_upsample_bilinear2d_aa_backward upsample_bilinear2d_backward upsample_bicubic2d_backward "
        "reflection_pad2d_backward grid_sampler_2d_backward",
        "never",
        "atomic additions; we take no gradient of an image, nor `grid_sample`; a network of a user's may",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "random numbers",
        "bernoulli exponential native_dropout native_dropout_backward normal rand randint randn randperm uniform",
        "always",
        "from generators seeded by their purpose; other numbers than a CPU's",
        ("PyTorch 2",),
    ),
    OperatorGroup(
        "scaling of the fp16 loss",
        "_amp_foreach_non_finite_check_and_unscale _amp_update_scale",
        "always",
        "element by element; that one is not finite is written, never added",
        ("PyTorch 1",),
    ),
    OperatorGroup(
        "factorisations, of quality measures",
        "_linalg_eigh _linalg_svd linalg_cholesky_ex linalg_solve_triangular triangular_solve",
        "unknown",
        "cuSOLVER has a mode for equal bits that is on by default, and PyTorch chooses among libraries",
        ("cuSOLVER",),
    ),
    OperatorGroup(
        "gathering from replicas, links",
        "c10d.allgather c10d._allgather_base c10d.broadcast c10d.gather c10d.scatter c10d.send c10d.recv c10d.barrier",
        "always",
        "nothing is added up; batch norm and losses over replicas are then computed alike by each",
        ("NCCL 1",),
    ),
    OperatorGroup(
        "sums over replicas",
        "c10d.allreduce c10d.allreduce_coalesced c10d.reduce c10d.reduce_scatter c10d._reduce_scatter_base",
        "asked",
        "with these levels PyTorch turns off NVLS, whose order varies; rings and trees keep theirs while the "
        "ranks, their connections and `NCCL_ALGO` are the same",
        ("NCCL 1", "NCCL 2"),
    ),
)
_BY_NAME = {name: group for group in OPERATORS for name in group.operators.split()}


def group_of(name: str) -> OperatorGroup | None:
    """The entry on an operator, named as PyTorch does, such as `aten.add_.Tensor`; None if there is none.

    `add_` works in place as `add` does, `_foreach_add` on a list of tensors.
    """
    space, _, operator = name.replace("::", ".").partition(".")
    operator = operator.partition(".")[0].removeprefix("_foreach_").rstrip("_")
    return _BY_NAME.get(operator if space == "aten" else f"{space}.{operator}")


def unknown_operations(names: Iterable[str]) -> list[str]:
    """Those of the operators that compute something and have no entry, sorted."""
    return sorted(name for name in set(names) if name.split(".")[0] not in SILENT and group_of(name) is None)


def table() -> Iterator[str]:
    """The entries as the lines of a Markdown table."""
    yield "| what | operators | repeats with | why | sources |"
    yield "|---|---|---|---|---|"
    for group in OPERATORS:
        operators = " ".join(f"`{name}`" for name in group.operators.split())
        sources = ", ".join(f"[{name}]({SOURCES[name]})" for name in group.sources)
        yield f"| {group.kernels} | {operators} | {MEANINGS[group.repeats]} | {group.why} | {sources} |"


if __name__ == "__main__":
    print("\n".join(table()))
