"""Floating-point operations of a stage's steps, counted once for every kind of step, and the peak of known GPUs.

The first step of a kind runs under a dispatch mode, which looks at the shapes of what it passes on and changes
nothing: the bits are those of a step that is not counted. PyTorch's own counter may take an operation apart, which
could round in another way. A mode turns `torch.compile` off, so of compiled stages `plain_steps` counts the same steps
as they are written, without computing them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from pipeline.precision import Compute
from pipeline.stage.stage import Stage
from workers.control.step_report import StageTimes

TERA = 1e12
PEAKS: dict[str, tuple[float, float, float]] = {
    "Tesla V100": (125, 15.7, 15.7),
    "Tesla T4": (65, 8.1, 8.1),
    "A10": (125, 62.5, 31.2),
    "A30": (165, 82, 10.3),
    "A100": (312, 156, 19.5),
    "L4": (121, 60.5, 30.3),
    "L40S": (362, 183, 91.6),
    "H100 PCIe": (756, 378, 51),
    "H100 NVL": (835, 417, 60),
    "H100": (989, 494, 67),
    "H200 NVL": (835, 417, 60),
    "H200": (989, 494, 67),
    "B200": (2250, 1125, 75),
    "GeForce RTX 3090": (71, 35.6, 35.6),
    "GeForce RTX 4090": (165, 82.6, 82.6),
}
"""TFLOP/s of a whole card in bf16 or fp16, in TF32 and in fp32 (which a card without TF32 has instead), without
sparsity, as the data sheets and white papers of NVIDIA say: nvidia.com/en-us/data-center/ and the card, and the white
papers of GA102 and Ada for GeForce, with sums in fp32. For a bare name, the SXM card. Longer names go first."""

OTHER_CARDS = {"MIG", "Ti", "SUPER", "Laptop", "D"}
"""Words that make a name that of a part of a card, or of another one."""


class StepFlops:
    """Counts for the stages of one process."""

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}

    def add_compiled(self, stage: Stage, times: StageTimes, count: Callable[[], int], *kind: Hashable) -> None:
        """Add the operations of a whole step of a compiled stage to `times`; nothing for any other stage.

        Args:
            stage: whose they are.
            times: of that stage.
            count: how many they are; called once for every kind.
            kind: what decides how many they are.
        """
        if stage.compute.config.compile:
            key = (stage.index, *kind)
            if key not in self._known:
                self._known[key] = count()
            times.flops += self._known[key]

    @contextmanager
    def counted(self, stage: Stage, times: StageTimes, *kind: Hashable) -> Iterator[None]:
        """Add the operations of what runs within the context to `times`; none of a compiled stage.

        Args:
            stage: whose they are.
            times: of that stage.
            kind: what decides how many they are, such as the shape of the input.
        """
        key = (stage.index, *kind)
        if stage.compute.config.compile or key in self._known:
            yield
        else:
            with Counting() as counting:
                yield
            self._known[key] = counting.flops
        times.flops += self._known.get(key, 0)


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Passes every operation on as it is."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(getattr(func, "_overloadpacket", None))
        if formula is not None:
            self.flops += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> int:
    count: Callable[..., int] = sdpa_flop_count
    return count(query.shape, key.shape, value.shape)


def _attention_backward(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> int:
    count: Callable[..., int] = sdpa_backward_flop_count
    return count(grad.shape, query.shape, key.shape, value.shape)


FORMULAS: dict[Any, Callable[..., Any]] = {
    **flop_registry,
    # PyTorch's list lacks those of a CPU.
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""By operation; a multiplication and an addition are two."""


def peak_flops(compute: Compute) -> float | None:
    """FLOP/s of the device of a stage in its precision, as its maker says; None where that is not known."""
    if compute.device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(compute.device), compute.half, torch.backends.cuda.matmul.allow_tf32)


def peak_of(card: str, half: bool, tf32: bool) -> float | None:
    """FLOP/s of a card by its name, as PyTorch gives it; None for one that `PEAKS` lacks, or a part of a card."""
    name = name_in_peaks(card)
    return None if name is None else TERA * PEAKS[name][0 if half else 1 if tf32 else 2]


def name_in_peaks(card: str) -> str | None:
    """The name in `PEAKS` of a card by its name, as PyTorch gives it; None for any other, or a part of a card."""
    words = card.replace("-", " ").split()
    if OTHER_CARDS & set(words):
        return None
    for name in sorted(PEAKS, key=len, reverse=True):
        if set(name.split()) <= set(words):
            return name
    return None
