"""The shape of the activations at every cut, and the networks that cannot have one.

Both ends of a link need the shape before the first batch, and `onward check` prints it. For ResNets
and Vision Transformers it is arithmetic, so that torch is not loaded for it; a user's module is traced
and run once without data. Every stride-2 layer of a ResNet is padded so that it maps n pixels to ceil(n / 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from pipeline.config import Config
from pipeline.config.model import Module, ResNet, ViT
from pipeline.config.units import VIT_LAYERS
from pipeline.data.augment.view_kinds import sizes_differ, view_kinds
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


def vit_sizes(model: ViT) -> ViTSizes:
    """The sizes of `model`: those given, and for the others those of the network it names."""
    patch_size, hidden_dim, num_heads, mlp_dim = VIT_SIZES[model.backbone]
    return ViTSizes(
        patch_size=model.patch_size or patch_size,
        hidden_dim=model.hidden_dim or hidden_dim,
        num_layers=model.num_layers or VIT_LAYERS[model.backbone],
        num_heads=model.num_heads or num_heads,
        mlp_dim=model.mlp_dim or mlp_dim,
    )


def expansion_of(model: ResNet) -> int:
    """Output channels of a residual unit over its inner width: 1 for basic blocks, 4 for bottlenecks."""
    return 1 if model.backbone in ("resnet18", "resnet34") else 4


def groups_of(model: ResNet) -> tuple[int, int]:
    """Groups of the 3x3 convolutions, and channels of one group in layer1 at width 64 (torchvision's `base_width`)."""
    return GROUPS.get(model.backbone, (1, 64))


def unit_channels(model: ResNet, unit: str) -> int:
    """Channels after `unit`."""
    if unit == "stem":
        return model.width
    layer = int(unit.removeprefix("layer").split(".")[0])
    return int(model.width * 2 ** (layer - 1) * expansion_of(model))


def unit_size(model: ResNet, unit: str, size: int) -> int:
    """Side in pixels after `unit`, given the side before it."""
    if unit == "stem":
        halvings = {"imagenet": 2, "cifar": 0, "strided": 1}[model.stem]
    else:
        halvings = int(unit.endswith(".0") and not unit.startswith("layer1"))
    for _ in range(halvings):
        size = (size + 1) // 2
    return size


def boundary_shapes(config: Config) -> list[tuple[int, ...]]:
    """What enters every stage at most, then what leaves the last.

    Images, as bytes, are `[V, B, S, S, 3]`; activations `[V, B, C, H, W]`, or `[V, B, N, D]` of tokens. Where the views
    have several sizes it is all `[1, B, total]` (`pipeline.data.packing`).

    Raises:
        ConfigError: a user's module that cannot be cut, as `check_model` does.
    """
    sizes = [kind.size for kind in view_kinds(config.data, config.num_views)]
    of_views = [view_shapes(config, index, sizes) for index in range(1, config.num_stages + 2)]
    return [packed_shape(shapes, config.data.batch_size, sizes_differ(config.data)) for shapes in of_views]


def packed_shape(shapes: Sequence[tuple[int, ...]], rows: int, packed: bool) -> tuple[int, ...]:
    """The shape of what `pipeline.data.packing.pack` makes of views of `shapes` (of one image each), `rows` images."""
    if packed:
        return 1, rows, sum(prod(shape) for shape in shapes)
    return len(shapes), rows, *shapes[0]


def view_shapes(config: Config, index: int, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """What enters stage `index` of one image, for views of these sides in pixels: `(S, S, 3)` of stage 1.

    One number more than there are stages stands for what leaves the last. Raises as `boundary_shapes`.
    """
    if index == 1:
        return [(size, size, 3) for size in sizes]
    shapes = {size: block_output(config, index - 1, size) for size in set(sizes)}
    return [shapes[size] for size in sizes]


def block_output(config: Config, index: int, size: int | None = None) -> tuple[int, ...]:
    """What block `index`, counted from 1, makes of one view of one image: `(C, H, W)`, or `(N, D)` of tokens.

    Args:
        config, index: of the run and the block.
        size: side of the view in pixels; `data.image_size` if not given.

    Raises:
        ConfigError: a user's module that cannot be cut, or does not take views of this size.
    """
    return list(_block_outputs(config, size or config.data.image_size))[index - 1]


def channels_of(shape: Sequence[int]) -> int:
    """Features at one place of what `block_output` returns: C of a map `(C, H, W)`, D of tokens `(N, D)`."""
    return shape[0] if len(shape) == 3 else shape[1]


def check_model(config: Config) -> None:
    """Refuse a network that cannot be built, or cannot take the images of the run.

    Without torch for ResNets and Vision Transformers; a user's module is imported, built and traced.

    Raises:
        ConfigError: what is wrong, at the key that has to change.
    """
    model = config.model
    if isinstance(model, ResNet):
        _check_width(model)
    elif isinstance(model, ViT):
        _check_heads(model)
        _check_patches(model, config.data.image_size)
    else:
        _facts_of_module(model, config.data.image_size)


def _block_outputs(config: Config, size: int) -> Iterator[tuple[int, ...]]:
    model = config.model
    if isinstance(model, Module):
        yield from _facts_of_module(model, size)
    elif isinstance(model, ViT):
        sizes = vit_sizes(model)
        for _ in model.blocks():
            yield (size // sizes.patch_size) ** 2 + 1, sizes.hidden_dim  # one token a patch, and the class token
    else:
        for units in model.blocks():
            for unit in units:
                size = unit_size(model, unit, size)
            yield unit_channels(model, units[-1]), size, size


def _facts_of_module(model: Module, image_size: int) -> list[tuple[int, ...]]:
    from pipeline.backbones.module import measure  # loads torch

    return [facts.output for facts in measure(model, image_size)]


def _check_width(model: ResNet) -> None:
    groups, group_width = groups_of(model)
    if model.width * group_width % 64:
        raise ConfigError(
            "model.width",
            f"{model.backbone} at width {model.width} would have {groups} groups of {model.width * group_width / 64:g} "
            "channels",
            f"Give a multiple of {64 // group_width}",
        )


def _check_heads(model: ViT) -> None:
    sizes = vit_sizes(model)
    if sizes.hidden_dim % sizes.num_heads:
        divisors = [str(n) for n in range(1, min(sizes.hidden_dim, 64) + 1) if sizes.hidden_dim % n == 0]
        raise ConfigError(
            "model.hidden_dim" if model.num_heads is None else "model.num_heads",
            f"{sizes.num_heads} attention heads cannot share hidden_dim={sizes.hidden_dim} evenly",
            f"Give model.hidden_dim as a multiple of {sizes.num_heads}, or model.num_heads out of "
            f"{', '.join(divisors)}",
        )


def _check_patches(model: ViT, image_size: int) -> None:
    patch = vit_sizes(model).patch_size
    if image_size % patch:
        below = image_size // patch * patch
        sizes = f"{below} or {below + patch}" if below >= 8 else f"{below + patch}"
        raise ConfigError(
            "data.image_size",
            f"{image_size} pixels are not a whole number of patches of {patch} pixels",
            f"Give {sizes}, or another model.patch_size",
        )
