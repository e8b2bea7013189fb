"""More than a training process will need, in a millisecond and without torch: where that fits, no account is made.

Every count is generous: of the maps and matrices that a unit computes, of their copies in another dtype or layout, and
of the gradients that are there at once. A test holds it above the account.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from pipeline.config import Config, StageConfig
from pipeline.config.heads import ExpansionConfig
from pipeline.config.model import ModuleConfig, ResNetConfig, ViTConfig
from pipeline.config.network_sizes import expansion_of, groups_of, unit_channels, unit_size, vit_sizes
from pipeline.data.augment.view_kinds import view_kinds
from pipeline.shapes import block_output, channels_of, embedding_width, feature_width

BYTES = 4
"""Of a number; half of them have fewer, and a copy with as many."""
STATES = 10
"""Times the parameters: with gradients, the optimizer's state, BYOL's target, and what a step computes of them."""
MAPS = 8
"""Maps of a unit's output that exist at once for each unit, those of its backward pass and of noise among them."""
INNER_MAPS = 4
"""The same of the maps within a bottleneck, and of the input."""
LOSS_MATRICES = 12
"""Matrices over the embedding's width, or over all images, that a loss computes."""


def upper_bound(config: Config, indices: Sequence[int]) -> int | None:
    """Bytes that the tensors of a process stay below, which trains the stages `indices`; None for a user's own network.

    Args:
        config: of the run.
        indices: the stages, counted from 1.
    """
    if isinstance(config.model, ModuleConfig):
        return None
    return sum(_stage(config, config.stage(index)) for index in indices)


def _stage(config: Config, stage: StageConfig) -> int:
    rows, views = config.data.batch_size // stage.replicas, config.num_views
    parameters, numbers = _head_parameters(config, stage), 0
    for size in [kind.size for kind in view_kinds(config.data, views)]:
        before = (3, size, size) if stage.index == 1 else block_output(config, stage.index - 1, size)
        of_units, of_block = _block(config.model, stage.units, size, before, config)
        numbers += of_block + _head_numbers(config, stage, size) + INNER_MAPS * prod(before)
    width, images = embedding_width(config, stage), views * config.data.batch_size
    loss = LOSS_MATRICES * (width**2 + images**2 + images * width)
    return BYTES * (STATES * (parameters + of_units) + rows * numbers + loss)


def _block(
    model: ResNetConfig | ViTConfig | ModuleConfig,
    units: Sequence[str],
    size: int,
    before: tuple[int, ...],
    config: Config,
) -> tuple[int, int]:
    """Parameters of a block, and numbers that it computes for one view of one image, `size` pixels wide."""
    if isinstance(model, ViTConfig):
        return _transformer(model, units, size)
    assert isinstance(model, ResNetConfig)
    channels, side = before[0], before[1]
    parameters = numbers = 0
    groups, group_width = groups_of(model)
    for unit in units:
        after, side_after = unit_channels(model, unit), unit_size(model, unit, side)
        inner = after // expansion_of(model) * groups * group_width // 64
        widest = max(channels, after)
        parameters += 9 * inner * max(inner, channels if expansion_of(model) == 1 else inner)
        parameters += 2 * widest * (inner + after) + (49 * 3 * after if unit == "stem" else 0)
        stem = MAPS * after * ((side + 1) // 2 if model.stem != "cifar" else side) ** 2 if unit == "stem" else 0
        numbers += MAPS * after * side_after**2 + INNER_MAPS * (inner + channels) * side**2 + stem
        channels, side = after, side_after
    return parameters, numbers


def _transformer(model: ViTConfig, units: Sequence[str], size: int) -> tuple[int, int]:
    sizes = vit_sizes(model)
    tokens, width = (size // sizes.patch_size) ** 2 + 1, sizes.hidden_dim
    of_layer = 4 * width**2 + 2 * width * sizes.mlp_dim + 16 * width
    numbers = 2 * MAPS * tokens * width + INNER_MAPS * tokens * (sizes.mlp_dim + sizes.num_heads * tokens)
    patches = 3 * sizes.patch_size**2 * width + tokens * width
    return len(units) * of_layer + patches, len(units) * numbers


def _head_parameters(config: Config, stage: StageConfig) -> int:
    channels, head, expansion = channels_of(block_output(config, stage.index)), stage.head, 0
    if isinstance(head, ExpansionConfig):
        expansion = channels * head.width * (9 if head.filter == 3 else 1)
    widths = [feature_width(config, stage), *head.projector]
    predictor: tuple[int, ...] = getattr(stage.objective, "predictor", None) or ()
    predicted = [embedding_width(config, stage), *predictor]
    pairs = [*pairwise(widths), *pairwise(predicted)]
    return expansion + sum(before * after for before, after in pairs)


def _head_numbers(config: Config, stage: StageConfig, size: int) -> int:
    """That the head computes for one view of one image."""
    output = block_output(config, stage.index, size)
    positions = prod(output) // channels_of(output)
    expanded = stage.head.width * positions if isinstance(stage.head, ExpansionConfig) else prod(output)
    predicted = sum(getattr(stage.objective, "predictor", None) or ())
    return MAPS * (expanded + feature_width(config, stage) + sum(stage.head.projector) + predicted)
