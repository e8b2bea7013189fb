"""Turning the hue of bytes: what the hexagon of hues says, to one level."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from pipeline.data.augment.hue import SMALL, HsvTurn, PlanesTurn, hue_turn

SIZE = 48


def colors() -> np.ndarray:
    """Random colours, all pure ones, grays, and pairs of equal channels; `[SIZE, SIZE, 3]`."""
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    image[0] = image[0, :, :1]
    image[1, :, 1] = image[1, :, 0]
    image[2, :, 2] = image[2, :, 1]
    image[3, :, 0] = image[3, :, 2]
    image[4, :8] = [[255 * (n >> 2 & 1), 255 * (n >> 1 & 1), 255 * (n & 1)] for n in range(8)]
    return image


def turned(image: np.ndarray, turn: float) -> np.ndarray:
    result = image.copy()
    PlanesTurn(len(image))(result, turn)
    return result


def by_hexagon(image: np.ndarray, turn: float) -> np.ndarray:
    """The standard library's conversion, in double precision."""
    result = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] / 255))
        result[place] = colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value)
    return 255 * result


@pytest.mark.parametrize("turn", [0.02, -0.02, 0.1, -0.1, 1 / 6, 0.2, -0.3, 1 / 3, -1 / 3, 0.45, 0.5, -0.5, 0.9, 2.13])
def test_it_is_the_hexagon_to_one_level(turn: float) -> None:
    assert np.abs(turned(colors(), turn) - by_hexagon(colors(), turn)).max() <= 1.0


def test_no_turn_is_no_change_and_a_third_exchanges_the_channels() -> None:
    np.testing.assert_array_equal(turned(colors(), 0.0), colors())
    np.testing.assert_array_equal(turned(colors(), 1.0), colors())
    np.testing.assert_array_equal(turned(colors(), 1 / 3), colors()[..., [2, 0, 1]])
    np.testing.assert_array_equal(turned(colors(), -1 / 3), colors()[..., [1, 2, 0]])


def test_gray_stays_gray_and_the_brightest_and_darkest_levels_stay() -> None:
    before = colors()
    for turn in (0.07, -0.22, 0.4):
        after = turned(before, turn)
        np.testing.assert_array_equal(after[0], before[0])
        np.testing.assert_array_equal(after.max(axis=2), before.max(axis=2))
        np.testing.assert_array_equal(after.min(axis=2), before.min(axis=2))


def test_memory_that_is_used_again_changes_nothing() -> None:
    one = PlanesTurn(SIZE)
    expected = turned(colors(), -0.1)
    for other in (0.3, 0.05, -0.4):
        one(colors(), other)
        again = colors()
        one(again, -0.1)
        np.testing.assert_array_equal(again, expected)


def test_small_images_go_through_hsv_and_come_out_near() -> None:
    assert isinstance(hue_turn(SMALL), PlanesTurn)
    one = hue_turn(SMALL - 1)
    assert isinstance(one, HsvTurn)
    for turn in (0.02, -0.1, 0.37, -0.5, 1.2):
        image = colors()
        HsvTurn(SIZE)(image, turn)
        difference = np.abs(image - by_hexagon(colors(), turn))
        assert difference.mean() < 1.5
        assert difference.max() < 10.0
        np.testing.assert_array_equal(image[0], colors()[0])
