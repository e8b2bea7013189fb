"""The names of the pieces of a network that are never cut, and how a list of cuts divides them.

The configuration checks cuts with this, and blocks are built from it; without torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import did_you_mean

RESNET_UNITS: dict[str, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
    "wide_resnet50_2": (3, 4, 6, 3),
    "wide_resnet101_2": (3, 4, 23, 3),
    "resnext50_32x4d": (3, 4, 6, 3),
    "resnext101_32x8d": (3, 4, 23, 3),
    "resnext101_64x4d": (3, 4, 23, 3),
}
"""Number of residual units in layer1 to layer4."""
VIT_LAYERS: dict[str, int] = {"vit_b_16": 12, "vit_b_32": 12, "vit_l_16": 24, "vit_l_32": 24, "vit_h_14": 32}
"""Number of encoder layers."""


def resnet_units(backbone: str) -> list[str]:
    """Names of the units of a ResNet in order: the stem, then every residual unit, `layerN.M`."""
    return ["stem"] + [f"layer{i}.{j}" for i, count in enumerate(RESNET_UNITS[backbone], 1) for j in range(count)]


def vit_units(num_layers: int) -> list[str]:
    """Names of the units of a Vision Transformer in order: the patch embedding, then every encoder layer."""
    return ["conv_proj"] + [f"encoder.layers.encoder_layer_{i}" for i in range(num_layers)]


def split_units(units: list[str], cuts: Sequence[str]) -> list[list[str]]:
    """The units of each block, in order; `cuts` are modules after which the network is cut."""
    ends = [_position(cut, units) + 1 for cut in cuts] + [len(units)]
    return [units[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def check_cuts(backbone: str, units: list[str], cuts: Sequence[str]) -> None:
    """Raises `ValueError`, as "problem. Remedy", unless every block gets at least one unit."""
    for cut in cuts:
        if not _units_named(cut, units):
            raise ValueError(f"'{cut}' is not a module of {backbone}. {_near_module(cut, units)}")
    positions = [_position(cut, units) for cut in cuts]
    if positions != sorted(set(positions)):
        in_order = [cut for _, cut in sorted(dict(zip(positions, cuts, strict=True)).items())]
        raise ValueError(f"got {list(cuts)}, which is not in network order, each module once. Give {in_order}")
    if positions and positions[-1] == len(units) - 1:
        raise ValueError(f"a cut after '{cuts[-1]}', the last module, leaves an empty block. Remove it")


def _position(cut: str, units: list[str]) -> int:
    return units.index(_units_named(cut, units)[-1])


def _units_named(name: str, units: list[str]) -> list[str]:
    """The units of the module `name`, in order; none if there is no such module."""
    return [unit for unit in units if unit == name or unit.startswith(name + ".")]


def _near_module(name: str, units: list[str]) -> str:
    """A remedy with the allowed modules: layers by name, units by range, because there may be dozens."""
    layers = list(dict.fromkeys(unit.split(".")[0] for unit in units))
    hint = did_you_mean(name, [*layers, *units])
    if units[0] == "conv_proj":
        return f"{hint}Allowed: {units[0]}, or one layer: {units[1]} to {units[-1]}"
    ranges = [f"{layer}.0 to {_units_named(layer, units)[-1]}" for layer in layers[1:]]
    return f"{hint}Allowed: {', '.join(layers)}, or one residual unit: {', '.join(ranges)}"
