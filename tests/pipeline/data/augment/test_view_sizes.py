"""How large views are at which epoch."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.config import DataConfig
from pipeline.config.data import CropsConfig, ProgressiveConfig
from pipeline.data.augment.resolution import all_view_sizes, resolution, view_sizes


def growing(start: int, first: int, end: int, size: int = 224, *views: CropsConfig) -> DataConfig:
    ramp = ProgressiveConfig(start_size=start, start_epoch=first, end_epoch=end)
    return DataConfig(image_size=size, progressive=ramp, views=views)


def released(epoch: int, start: int, first: int, end: int, size: int) -> int:
    """FFCV's rule: interpolated, to the nearest multiple of 32, numpy's way."""
    if epoch <= first:
        return start
    return size if epoch >= end else int(np.round(np.interp([epoch], [first, end], [start, size])[0] / 32)) * 32


@pytest.mark.parametrize(("start", "first", "end", "size"), [(160, 41, 48, 192), (128, 0, 13, 224), (96, 3, 100, 224)])
def test_the_ramp_is_that_of_ffcv(start: int, first: int, end: int, size: int) -> None:
    data = growing(start, first, end, size)
    found = [resolution(data, epoch) for epoch in range(end + 20)]
    assert found == [released(epoch, start, first, end, size) for epoch in range(end + 20)]
    assert found == sorted(found)


def test_without_a_ramp_it_is_always_the_same() -> None:
    assert {resolution(DataConfig(image_size=100), epoch) for epoch in range(5)} == {100}
    assert all_view_sizes(DataConfig(image_size=100)) == (100,)


def test_it_begins_and_ends_exactly_and_never_leaves_the_two() -> None:
    data = growing(150, 2, 7, 250)
    found = [resolution(data, epoch) for epoch in range(10)]
    assert found == [150, 150, 150, 160, 192, 224, 224, 250, 250, 250]
    assert resolution(growing(130, 0, 100), 1) == 130  # the nearest multiple would be 128
    assert resolution(growing(8, 0, 100, 243), 99) == 243  # the nearest multiple would be 256


def test_small_images_grow_in_steps_of_four() -> None:
    assert [resolution(growing(16, 0, 4, 28), epoch) for epoch in range(6)] == [16, 20, 24, 24, 28, 28]
    assert [resolution(growing(32, 0, 3, 64), epoch) for epoch in range(4)] == [32, 32, 64, 64]


def test_smaller_views_shrink_by_the_same_factor() -> None:
    data = growing(128, 0, 4, 224, CropsConfig(count=2), CropsConfig(size=96), CropsConfig(size=24))
    assert [view_sizes(data, epoch) for epoch in range(6)] == [
        (128, 128, 64, 24), (160, 160, 64, 24), (192, 192, 96, 24), (192, 192, 96, 24), (224, 224, 96, 24),
        (224, 224, 96, 24),
    ]  # fmt: skip
    assert all_view_sizes(data) == (24, 64, 96, 128, 160, 192, 224)


def test_at_full_resolution_nothing_is_rounded() -> None:
    data = growing(20, 0, 2, 30, CropsConfig(count=2), CropsConfig(size=17))
    assert [view_sizes(data, epoch) for epoch in range(3)] == [(20, 20, 12), (24, 24, 12), (30, 30, 17)]


def test_no_view_is_smaller_than_eight_pixels() -> None:
    assert view_sizes(growing(8, 0, 4, 32, CropsConfig(count=2), CropsConfig(size=12)), 0) == (8, 8, 8)


def test_the_patch_has_the_size_of_the_views() -> None:
    assert view_sizes(growing(16, 0, 4, 28), 1, num_views=3) == (20, 20, 20)
