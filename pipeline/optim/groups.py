"""Parameter groups: biases and norms without weight decay and layer-wise scaling, at their own rate.

The released codes agree on treating biases and norms separately, and differ in how they select them: by the
number of dimensions (Barlow Twins, VICReg, blockwise SSL) or by the layer (the BYOL reproduction report).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor, nn

Exclusion = Literal["dimension", "type", "none"]

_LINEAR_OR_CONVOLUTION = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def parameter_groups(
    module: nn.Module,
    exclude: Exclusion,
    weight_decay: float,
    lr_ratio_of_excluded: float = 1.0,
    lars_weight: float | None = None,
) -> list[dict[str, Any]]:
    """The module's parameters as groups for an optimizer: the regular ones, then the excluded ones.

    Every group has its `weight_decay` and its `lr_ratio`, a factor on the learning rate of a step.
    Parameters keep the module's order; a group without parameters is left out.

    Args:
        module: the module to optimize.
        exclude: `dimension`: parameters with one dimension (released `main.py: LARS`). `type`: all but
            the weights of linear layers and convolutions (BYOL report), including the packed projections
            of `nn.MultiheadAttention`. `none`: no parameter.
        weight_decay: of the regular group; the excluded ones have none.
        lr_ratio_of_excluded: learning rate of the excluded group, as a multiple of the regular one's.
        lars_weight: of the regular group, where the optimizer is layer-wise; 0 in the excluded group.
    """
    excluded = {id(p) for p in _excluded(module, exclude)}
    regular_group: dict[str, Any] = {"weight_decay": weight_decay, "lr_ratio": 1.0}
    excluded_group: dict[str, Any] = {"weight_decay": 0.0, "lr_ratio": lr_ratio_of_excluded}
    if lars_weight is not None:
        regular_group["lars_weight"], excluded_group["lars_weight"] = lars_weight, 0.0
    regular_group["params"] = [p for p in module.parameters() if id(p) not in excluded]
    excluded_group["params"] = [p for p in module.parameters() if id(p) in excluded]
    return [group for group in (regular_group, excluded_group) if group["params"]]


def _excluded(module: nn.Module, rule: Exclusion) -> list[Tensor]:
    if rule == "none":
        return []
    if rule == "dimension":
        return [p for p in module.parameters() if p.ndim == 1]
    weights = {id(p) for p in _weights_of_layers(module)}
    return [p for p in module.parameters() if id(p) not in weights]


def _weights_of_layers(module: nn.Module) -> Iterator[Tensor]:
    for layer in module.modules():
        if isinstance(layer, _LINEAR_OR_CONVOLUTION):
            yield layer.weight
        elif isinstance(layer, nn.MultiheadAttention):
            # Its input projections are linear layers: one packed tensor, or three where widths differ.
            yield from (p for name, p in layer.named_parameters(recurse=False) if name.endswith("proj_weight"))
