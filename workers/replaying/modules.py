"""The numbers of one module in a replayed step and of one of its calls, and where something was not finite first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor


@dataclass
class ModuleNumbers:
    """Of one module of a stage; norms are 2-norms over all its calls, which are one for each view.

    Args:
        name: as in the weights of the stage, such as `block.layer1.0.conv1`.
        kind: its class.
        leaf: whether it called no other module.
        calls: how often it was called.
        output: norm of what it gave.
        largest: of the absolute values in it.
        gradient: norm of the loss's gradient with respect to what it gave; None where none came back.
        parameters: norm of the gradients of its own parameters, not of those of modules in it; None where none has one.
        not_finite: numbers in its output that are not finite.
    """

    name: str
    kind: str
    _: KW_ONLY
    leaf: bool = True
    calls: int = 0
    output: float = 0.0
    largest: float = 0.0
    gradient: float | None = None
    parameters: float | None = None
    not_finite: int = 0

    def add_output(self, tensors: Iterable[Tensor]) -> None:
        """What one more call has given."""
        self.calls += 1
        for tensor in tensors:
            self.output = together(self.output, norm_of(tensor))
            self.largest = max(self.largest, float(tensor.detach().abs().amax())) if tensor.numel() else self.largest
            self.not_finite += not_finite_in(tensor)

    def add_gradient(self, tensor: Tensor, scale: float) -> None:
        """The gradient of a loss that was multiplied by `scale`."""
        self.gradient = together(self.gradient or 0.0, norm_of(tensor) / scale)

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary; a number that is not finite is its name, as JSON has none."""
        return {key: as_json(value) for key, value in vars(self).items()}


@dataclass(frozen=True)
class CallNumbers:
    """What one call of a module gave.

    Args:
        name, kind: of the module, and its class.
        call: from 1.
        output: norm of what it gave.
        largest: of the absolute values in it.
        not_finite: numbers in it that are not finite.
    """

    name: str
    kind: str
    call: int
    _: KW_ONLY
    output: float
    largest: float
    not_finite: int

    @classmethod
    def of(cls, module: ModuleNumbers, tensors: Sequence[Tensor]) -> CallNumbers:
        """Of the last call, which has given `tensors`."""
        alone = ModuleNumbers(module.name, module.kind)
        alone.add_output(tensors)
        return cls(
            module.name,
            module.kind,
            module.calls,
            output=alone.output,
            largest=alone.largest,
            not_finite=alone.not_finite,
        )

    def to_json(self) -> dict[str, Any]:
        """As `ModuleNumbers.to_json`."""
        return {key: as_json(value) for key, value in vars(self).items()}


def norm_of(tensor: Tensor) -> float:
    """The 2-norm of all elements, in double precision."""
    return float(torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64))


def together(one: float, other: float) -> float:
    """The norm of two parts of a vector together."""
    return float((one**2 + other**2) ** 0.5)


def not_finite_in(tensor: Tensor) -> int:
    """How many of its elements are not finite; 0 for integers."""
    return int((~tensor.detach().isfinite()).sum()) if tensor.is_floating_point() else 0


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that has an element which is not finite."""
    return next((name for name, tensor in tensors if not_finite_in(tensor)), None)


def as_json(value: Any) -> Any:
    """A float that is not finite as `nan`, `inf` or `-inf`; everything else as it is."""
    return str(value) if isinstance(value, float) and not isfinite(value) else value
