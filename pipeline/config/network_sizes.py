"""The sizes of the named networks: channels, patches, heads, and checks of them; without torch."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.model import ResNetConfig, ViTConfig
from pipeline.config.units import VIT_LAYERS
from pipeline.errors import ConfigError

GROUPS: dict[str, tuple[int, int]] = {
    "wide_resnet50_2": (1, 128),
    "wide_resnet101_2": (1, 128),
    "resnext50_32x4d": (32, 4),
    "resnext101_32x8d": (32, 8),
    "resnext101_64x4d": (64, 4),
}
"""Groups of the 3x3 convolutions, and channels of one group in layer1 at width 64; (1, 64) for all others."""


VIT_SIZES: dict[str, tuple[int, int, int, int]] = {
    "vit_b_16": (16, 768, 12, 3072),
    "vit_b_32": (32, 768, 12, 3072),
    "vit_l_16": (16, 1024, 16, 4096),
    "vit_l_32": (32, 1024, 16, 4096),
    "vit_h_14": (14, 1280, 16, 5120),
}
"""Patch size in pixels, hidden_dim, num_heads and mlp_dim, as in torchvision."""


@dataclass(frozen=True)
class ViTSizes:
    """The sizes of one Vision Transformer, named as torchvision names them; `patch_size` in pixels."""

    patch_size: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    mlp_dim: int


def vit_sizes(model: ViTConfig) -> ViTSizes:
    """The sizes of `model`: those that are set, and for the others those of the named network."""
    patch_size, hidden_dim, num_heads, mlp_dim = VIT_SIZES[model.backbone]
    return ViTSizes(
        patch_size=model.patch_size or patch_size,
        hidden_dim=model.hidden_dim or hidden_dim,
        num_layers=model.num_layers or VIT_LAYERS[model.backbone],
        num_heads=model.num_heads or num_heads,
        mlp_dim=model.mlp_dim or mlp_dim,
    )


def expansion_of(model: ResNetConfig) -> int:
    """Output channels of a residual unit over its inner width: 1 for basic blocks, 4 for bottlenecks."""
    return 1 if model.backbone in ("resnet18", "resnet34") else 4


def groups_of(model: ResNetConfig) -> tuple[int, int]:
    """Groups of the 3x3 convolutions, and channels of one group in layer1 at width 64 (torchvision's `base_width`)."""
    return GROUPS.get(model.backbone, (1, 64))


def unit_channels(model: ResNetConfig, unit: str) -> int:
    """Channels after `unit`."""
    if unit == "stem":
        return model.width
    layer = int(unit.removeprefix("layer").split(".")[0])
    return int(model.width * 2 ** (layer - 1) * expansion_of(model))


def unit_size(model: ResNetConfig, unit: str, size: int) -> int:
    """Side in pixels after `unit`, given the side before it."""
    if unit == "stem":
        halvings = {"imagenet": 2, "cifar": 0, "strided": 1}[model.stem]
    else:
        halvings = int(unit.endswith(".0") and not unit.startswith("layer1"))
    for _ in range(halvings):
        size = (size + 1) // 2
    return size


def check_width(model: ResNetConfig) -> None:
    """Raises `ConfigError` if the groups of the convolutions do not divide the width."""
    groups, group_width = groups_of(model)
    if model.width * group_width % 64:
        raise ConfigError(
            "model.width",
            f"{model.backbone} at width {model.width} would have {groups} groups of {model.width * group_width / 64:g} "
            "channels",
            f"Give a multiple of {64 // group_width}",
        )


def check_heads(model: ViTConfig) -> None:
    """Raises `ConfigError` if the number of attention heads does not divide the width."""
    sizes = vit_sizes(model)
    if sizes.hidden_dim % sizes.num_heads:
        divisors = [str(n) for n in range(1, min(sizes.hidden_dim, 64) + 1) if sizes.hidden_dim % n == 0]
        raise ConfigError(
            "model.hidden_dim" if model.num_heads is None else "model.num_heads",
            f"{sizes.num_heads} attention heads cannot share hidden_dim={sizes.hidden_dim} evenly",
            f"Give model.hidden_dim as a multiple of {sizes.num_heads}, or model.num_heads out of "
            f"{', '.join(divisors)}",
        )


def check_patches(model: ViTConfig, image_size: int) -> None:
    """Raises `ConfigError` if the side of the images, `image_size` pixels, is not a multiple of the patch size."""
    patch = vit_sizes(model).patch_size
    if image_size % patch:
        below = image_size // patch * patch
        sizes = f"{below} or {below + patch}" if below >= 8 else f"{below + patch}"
        raise ConfigError(
            "data.image_size",
            f"{image_size} pixels are not a whole number of patches of {patch} pixels",
            f"Give {sizes}, or another model.patch_size",
        )
