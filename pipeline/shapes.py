"""The shape of the activations at every cut, by arithmetic alone.

Both ends of a link need the shape before the first batch, and `onward check` prints it without
loading torch. Every stride-2 layer of a ResNet is padded so that it maps n pixels to ceil(n / 2).
"""

from __future__ import annotations

from pipeline.config import Config, Model

NUM_VIEWS = 2


def expansion_of(model: Model) -> int:
    """Output channels of a residual unit over its inner width: 1 for basic blocks, 4 for bottlenecks."""
    return 1 if model.backbone in ("resnet18", "resnet34") else 4


def output_channels(model: Model, unit: str) -> int:
    """Channels after `unit`."""
    if unit == "stem":
        return model.width
    layer = int(unit.removeprefix("layer").split(".")[0])
    return int(model.width * 2 ** (layer - 1) * expansion_of(model))


def output_size(model: Model, unit: str, size: int) -> int:
    """Side in pixels after `unit`, given the side before it."""
    if unit == "stem":
        halvings = {"imagenet": 2, "cifar": 0, "strided": 1}[model.stem]
    else:
        halvings = int(unit.endswith(".0") and not unit.startswith("layer1"))
    for _ in range(halvings):
        size = (size + 1) // 2
    return size


def boundary_shapes(config: Config) -> list[tuple[int, int, int, int, int]]:
    """Input shape of every stage, then the output shape of the last, each `[V, B, C, H, W]`."""
    size, batch = config.data.image_size, config.data.batch_size
    shapes = [(NUM_VIEWS, batch, 3, size, size)]
    for units in config.model.blocks():
        for unit in units:
            size = output_size(config.model, unit, size)
        shapes.append((NUM_VIEWS, batch, output_channels(config.model, units[-1]), size, size))
    return shapes
