"""Checks across the keys of the number and sizes of views: `data.views`, `data.progressive`."""

from __future__ import annotations

from pipeline.config import Config
from pipeline.config.model import ModuleConfig, ViTConfig
from pipeline.data.augment.resolution import all_view_sizes
from pipeline.data.augment.view_kinds import sizes_differ
from pipeline.errors import ConfigError
from pipeline.shapes import block_output, channels_of

NO_PATCH = "Give objective.negatives=batch, or leave data.views out"


def check_views(config: Config) -> None:
    """Raises `ConfigError` for the first value that no network can use."""
    _check_groups(config)
    _check_growth(config)


def check_sizes(config: Config) -> None:
    """Raises `ConfigError` if the network, or the codec of its links, does not support every size of view.

    `pipeline.shapes.check_model` must have passed before.
    """
    if all_view_sizes(config.data) != (config.data.image_size,):
        _check_network(config)
        _check_codec(config)


def for_smallest(config: Config) -> str:
    """The end of an error message about the smallest views, if there are larger ones."""
    smallest = all_view_sizes(config.data)[0]
    return "" if smallest == config.data.image_size else f" for views of {smallest} pixels"


def _check_groups(config: Config) -> None:
    groups, largest = config.data.views, config.data.image_size
    if not groups:
        return
    each = [number for number, group in enumerate(groups) for _ in range(group.count)]
    if len(each) < 2:
        raise ConfigError("data.views", "got one view, and a view is compared with another", "Give two views or more")
    for place, number in enumerate(each):
        size, path = groups[number].size or largest, f"data.views.{number}.size"
        if place < 2 and size != largest:
            problem = f"got {size}, and the first two views have the {largest} pixels of data.image_size"
            raise ConfigError(path, problem, "Leave it out, or change data.image_size; smaller views come after two")
        if size > largest:
            problem = f"got {size}, more than the {largest} pixels of data.image_size, which the first two views have"
            raise ConfigError(path, problem, f"Give at most {largest}, or a larger data.image_size")
    if config.has_patch and len(each) > 2:
        problem = f"got {len(each)} views, and the loss with objective.negatives=single_patch compares two"
        raise ConfigError("data.views", problem, NO_PATCH)


def _check_growth(config: Config) -> None:
    growth, path = config.data.progressive, "data.progressive"
    if growth is None:
        return
    largest, epochs = config.data.image_size, config.train.epochs
    if growth.start_size >= largest:
        problem = f"got {growth.start_size}, and the views grow to the {largest} pixels of data.image_size"
        raise ConfigError(f"{path}.start_size", problem, f"Give 8 to {largest - 1}, or leave data.progressive out")
    if growth.end_epoch <= growth.start_epoch:
        problem = f"got {growth.end_epoch}, and the ramp begins at start_epoch={growth.start_epoch}"
        raise ConfigError(f"{path}.end_epoch", problem, f"Give {growth.start_epoch + 1} or more")
    if growth.end_epoch > epochs:
        problem = (
            f"got {growth.end_epoch}, and the run has {epochs} epochs, so the views would never reach their full size"
        )
        raise ConfigError(f"{path}.end_epoch", problem, f"Give at most train.epochs={epochs}")
    if config.mode == "sequential":
        problem = "in mode sequential the blocks are trained one after the other, and only the first would see it grow"
        raise ConfigError(path, problem, "Leave it out, or give another mode")


def _check_network(config: Config) -> None:
    largest = config.data.image_size
    sizes = [size for size in all_view_sizes(config.data) if size != largest]
    shown_sizes = ", ".join(map(str, sizes))
    key = "data.views" if sizes_differ(config.data) else "data.progressive"
    if isinstance(config.model, ViTConfig):
        problem = (
            f"{config.model.backbone} has position embeddings for {largest} pixels, and views would have {shown_sizes}"
        )
        raise ConfigError(key, problem, "Give all views one size that does not grow, or a ResNet")
    if isinstance(config.model, ModuleConfig):
        for size in sizes:
            _check_module(config, size, key)


def _check_module(config: Config, size: int, key: str) -> None:
    """Refuse a module that fails on views of `size` pixels, or returns other channels for them."""
    remedy = "Give all views one size that does not grow, or a network that takes any"
    for index in range(1, config.num_stages + 1):
        whole = block_output(config, index)
        try:
            small = block_output(config, index, size)
        except ConfigError as error:
            raise ConfigError(key, f"for views of {size} pixels, {error.problem}", remedy) from None
        if len(small) != len(whole) or channels_of(small) != channels_of(whole):
            problem = f"stage {index} gives {list(small)} for views of {size} pixels, and {list(whole)} for others"
            raise ConfigError(key, problem, remedy)


def _check_codec(config: Config) -> None:
    if config.link.codec != "int8" or config.num_stages == 1:
        return
    if sizes_differ(config.data):
        problem = "'int8' has a scale for each channel of a map, and views of several sizes travel as plain rows"
        raise ConfigError("link.codec", problem, "Give bf16, fp16 or none, or data.views of one size")
    for size in all_view_sizes(config.data):
        for index in range(1, config.num_stages):
            shape = block_output(config, index, size)
            if len(shape) == 3 and shape[1] != shape[2]:
                problem = f"'int8' needs square maps where views grow, and stage {index} gives {shape[1]}x{shape[2]}"
                raise ConfigError("link.codec", problem, "Give bf16, fp16 or none, or leave data.progressive out")
