"""The shape of the activations at every cut, and the checks that a network has one.

Both ends of a link need the shape before the first batch, and `onward check` prints it. For ResNets
and Vision Transformers it is computed without torch; a user's module is traced and run once
without data. Every stride-2 layer of a ResNet is padded so that it maps n pixels to ceil(n / 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from pipeline.config import Config, StageConfig
from pipeline.config.heads import ExpansionConfig, LocalPoolingConfig
from pipeline.config.model import ModuleConfig, ResNetConfig, ViTConfig
from pipeline.config.network_sizes import check_heads, check_patches, check_width, unit_channels, unit_size, vit_sizes
from pipeline.data.augment.view_kinds import sizes_differ, view_kinds


def boundary_shapes(config: Config) -> list[tuple[int, ...]]:
    """The largest input shape of every stage, then the output shape of the last.

    Images, as bytes, are `[V, B, S, S, 3]`; activations `[V, B, C, H, W]`, or `[V, B, N, D]` of tokens. Where the views
    have several sizes it is all `[1, B, total]` (`pipeline.data.packing`).

    Raises:
        ConfigError: a user's module that cannot be cut, as `check_model` does.
    """
    sizes = [kind.size for kind in view_kinds(config.data, config.num_views)]
    of_views = [view_shapes(config, index, sizes) for index in range(1, config.num_stages + 2)]
    return [packed_shape(shapes, config.data.batch_size, sizes_differ(config.data)) for shapes in of_views]


def packed_shape(shapes: Sequence[tuple[int, ...]], rows: int, packed: bool) -> tuple[int, ...]:
    """The shape of the result of `pipeline.data.packing.pack` for `rows` images with views of `shapes`."""
    if packed:
        return 1, rows, sum(prod(shape) for shape in shapes)
    return len(shapes), rows, *shapes[0]


def view_shapes(config: Config, index: int, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """The input shapes of stage `index` for one image with views of these sides in pixels: `(S, S, 3)` for stage 1.

    The index after the last stage gives the output of the last. Raises as `boundary_shapes`.
    """
    if index == 1:
        return [(size, size, 3) for size in sizes]
    shapes = {size: block_output(config, index - 1, size) for size in set(sizes)}
    return [shapes[size] for size in sizes]


def block_output(config: Config, index: int, size: int | None = None) -> tuple[int, ...]:
    """The output shape of block `index`, counted from 1, for one view of one image: `(C, H, W)`, or `(N, D)` of tokens.

    Args:
        config, index: of the run and the block.
        size: side of the view in pixels; `data.image_size` if not given.

    Raises:
        ConfigError: a user's module that cannot be cut, or does not take views of this size.
    """
    return list(_block_outputs(config, size or config.data.image_size))[index - 1]


def channels_of(shape: Sequence[int]) -> int:
    """Number of channels of a shape from `block_output`: C of a map `(C, H, W)`, D of tokens `(N, D)`."""
    return shape[0] if len(shape) == 3 else shape[1]


def check_model(config: Config) -> None:
    """Check that the network can be built and accepts the images of the run.

    ResNets and Vision Transformers are checked without torch; a user's module is imported, built and traced.

    Raises:
        ConfigError: the network fails; the error names the key that has to change.
    """
    model = config.model
    if isinstance(model, ResNetConfig):
        check_width(model)
    elif isinstance(model, ViTConfig):
        check_heads(model)
        check_patches(model, config.data.image_size)
    else:
        _shapes_of_module(model, config.data.image_size)


def _block_outputs(config: Config, size: int) -> Iterator[tuple[int, ...]]:
    model = config.model
    if isinstance(model, ModuleConfig):
        yield from _shapes_of_module(model, size)
    elif isinstance(model, ViTConfig):
        sizes = vit_sizes(model)
        for _ in model.blocks():
            yield (size // sizes.patch_size) ** 2 + 1, sizes.hidden_dim  # one token per patch, and the class token
    else:
        for units in model.blocks():
            for unit in units:
                size = unit_size(model, unit, size)
            yield unit_channels(model, units[-1]), size, size


def _shapes_of_module(model: ModuleConfig, image_size: int) -> list[tuple[int, ...]]:
    from pipeline.backbones.module import measure  # loads torch

    return [facts.output for facts in measure(model, image_size)]


def feature_width(config: Config, stage: StageConfig) -> int:
    """Width of the feature that the projector of a stage reads."""
    channels = channels_of(block_output(config, stage.index))
    if isinstance(stage.head, ExpansionConfig):
        return stage.head.width
    return channels * (stage.head.grid**2 if isinstance(stage.head, LocalPoolingConfig) else 1)


def embedding_width(config: Config, stage: StageConfig) -> int:
    """Width of the embedding that the loss of a stage reads."""
    return stage.head.projector[-1] if stage.head.projector else feature_width(config, stage)
