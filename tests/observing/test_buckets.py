"""Any number of steps in the room of a few hundred: means of neighbouring steps."""

from __future__ import annotations

import numpy as np
import pytest

from workers.observing.live.buckets import Downsampler


def test_a_hundred_thousand_steps_take_the_room_of_a_few_hundred() -> None:
    buckets = Downsampler(limit=256)
    for step in range(100_000):
        buckets.add(step, 2.0 * step, {(1, "loss"): float(step)})
    rows = buckets.rows()
    assert 128 <= len(rows.steps) <= 256
    assert rows.stride == 512
    assert rows.steps[-1] == 99_999
    assert rows.times[-1] == 2.0 * 99_999
    assert rows.columns[1, "loss"][0] == pytest.approx(255.5)
    whole = [number for number, last in enumerate(rows.steps) if last % 512 == 511]
    assert len(whole) == len(rows.steps) - 1
    assert all(rows.columns[1, "loss"][number] == pytest.approx(rows.steps[number] - 255.5) for number in whole)


def test_what_is_measured_seldom_is_the_mean_of_what_was_measured() -> None:
    buckets = Downsampler(limit=4)
    for step in range(16):
        buckets.add(step, step, {(1, "rank"): float(step)} if step % 8 == 7 else {(1, "loss"): 1.0})
    rows = buckets.rows()
    assert rows.steps.tolist() == [3, 7, 11, 15]
    assert rows.columns[1, "rank"][[1, 3]].tolist() == [7.0, 15.0]
    assert np.isnan(rows.columns[1, "rank"][[0, 2]]).all()
    assert rows.columns[1, "loss"].tolist() == [1.0] * 4


def test_a_step_of_a_bucket_that_is_there_needs_no_room() -> None:
    buckets = Downsampler(limit=4)
    for step in (0, 1, 2, 3, 3):
        buckets.add(step, float(step), {(1, "loss"): float(step)})
    assert (buckets.stride, buckets.count) == (1, 4)
    buckets.add(4, 4.0, {})
    assert (buckets.stride, buckets.count) == (2, 3)


def test_a_full_table_takes_the_second_half_of_its_last_bucket_as_it_is() -> None:
    buckets = Downsampler(limit=4)
    for step in range(8):
        buckets.add(step, float(step), {(1, "loss"): float(step)})
    assert (buckets.stride, buckets.count) == (2, 4)
    assert buckets.rows().columns[1, "loss"].tolist() == [0.5, 2.5, 4.5, 6.5]


def test_a_step_that_makes_room_may_belong_to_the_last_row_that_is_left() -> None:
    buckets = Downsampler(limit=4)
    for step in (0, 1, 3, 4, 5):
        buckets.add(step, float(step), {(1, "loss"): float(step)})
    assert (buckets.stride, buckets.rows().steps.tolist()) == (4, [3, 5])
    assert buckets.rows().columns[1, "loss"].tolist() == [4 / 3, 4.5]


def test_steps_far_apart_are_joined_too() -> None:
    buckets = Downsampler(limit=8)
    for step in range(0, 100_000, 1000):
        buckets.add(step, step, {(0, "x"): 1.0})
    assert buckets.count <= 8
    assert buckets.rows().steps[-1] == 99_000
