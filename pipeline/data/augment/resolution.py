"""The sizes of the views, as a pure function of the epoch, so that a run can start at any step."""

from __future__ import annotations

from fractions import Fraction

from pipeline.config import DataConfig
from pipeline.data.augment.view_kinds import view_kinds

COARSE_STEP, FINE_STEP = 32, 4
"""Pixels; a network halves its maps five times, so steps of 32 divide evenly at every map."""
FINE_BELOW = 64
"""Value of `data.image_size` in pixels below which the fine step is used."""
SMALLEST = 8
"""Side in pixels of the smallest view that the configuration allows."""


def resolution(data: DataConfig, epoch: int) -> int:
    """Side in pixels of the largest views in `epoch`, counted from 0: `data.image_size` unless it grows.

    `progressive.start_size` up to `start_epoch`, `data.image_size` from `end_epoch` on, a straight line between them,
    rounded to the nearest multiple of 32 (of 4 where `data.image_size` is below 64; halves to the even one), as
    `get_resolution` of FFCV's `rn50_example` does; always between the two.
    """
    growth = data.progressive
    if growth is None or epoch >= growth.end_epoch:
        return data.image_size
    if epoch <= growth.start_epoch:
        return growth.start_size
    progress = Fraction(epoch - growth.start_epoch, growth.end_epoch - growth.start_epoch)
    exact = growth.start_size + progress * (data.image_size - growth.start_size)
    return min(max(_rounded(data, exact), growth.start_size), data.image_size)


def view_sizes(data: DataConfig, epoch: int, num_views: int | None = None) -> tuple[int, ...]:
    """Side in pixels of every view in `epoch`, in the order of `view_kinds(data, num_views)`.

    While the resolution grows, views that are smaller than `data.image_size` shrink by the same factor, rounded alike,
    to no less than one step of the rounding (and 8 pixels) and no more than their own size.
    """
    now, least = resolution(data, epoch), max(_step(data), SMALLEST)
    sizes = (kind.size for kind in view_kinds(data, num_views))
    if now == data.image_size:
        return tuple(sizes)
    return tuple(
        now if size == data.image_size else min(max(_rounded(data, Fraction(size * now, data.image_size)), least), size)
        for size in sizes
    )


def all_view_sizes(data: DataConfig) -> tuple[int, ...]:
    """Every side in pixels that a view of the run ever has, ascending."""
    first, end = (0, 0) if data.progressive is None else (data.progressive.start_epoch, data.progressive.end_epoch)
    return tuple(sorted({size for epoch in range(first, end + 1) for size in view_sizes(data, epoch)}))


def _step(data: DataConfig) -> int:
    return FINE_STEP if data.image_size < FINE_BELOW else COARSE_STEP


def _rounded(data: DataConfig, size: Fraction) -> int:
    return round(size / _step(data)) * _step(data)
