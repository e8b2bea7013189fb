"""Noise on the pixels of a view: normal, keyed by the view, and independent of everything else that is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AugmentConfig, JitterConfig
from pipeline.data.augment.parameters import draw_parameters
from tests.pipeline.data.samples import assert_normal, assert_uncorrelated, photo, views_of

BARE = {"crop_p": 0.0, "flip_p": 0.0, "gray_p": 0.0, "blur_p": 0.0, "solarize_p": 0.0, "jitter": JitterConfig(p=0.0)}
SIZE = 64
STD = 0.05


def noise_of(mode: str, key: tuple[int, int, int], view: int, std: float = STD) -> np.ndarray:
    """The noise on a view of a mid-gray image, `[3, SIZE, SIZE]`, in standard deviations, from the pixels alone."""
    image = Image.new("L", (SIZE, SIZE), 128).convert(mode)
    config = AugmentConfig(**BARE, noise_std=(std, std))
    return (views_of(image, config, SIZE, 2, *key)[view].transpose(2, 0, 1).astype(float) - 128) / (255 * std)


def spread(noise: np.ndarray, std: float = STD) -> np.ndarray:
    """Undo the rounding to whole levels: uniform within the level."""
    return noise + (np.random.default_rng(0).random(noise.shape) - 0.5) / (255 * std)


@pytest.mark.parametrize("std", [0.05, 0.1])
def test_noise_is_normal_with_the_given_deviation(std: float) -> None:
    noise = noise_of("RGB", (1, 2, 3), 0, std)
    assert_normal(spread(noise, std))
    assert abs(noise.mean()) < 4 / noise.size**0.5
    assert noise.std() == pytest.approx(1.0, abs=4 / (2 * noise.size) ** 0.5 + 0.003)  # the rounding adds a little


def test_noise_is_independent_over_channels_views_epochs_images_seeds_and_pixels() -> None:
    keys = [(1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3)]
    noises = [noise_of("RGB", key, view) for key in keys for view in (0, 1)]
    columns = [channel.ravel() for noise in noises for channel in noise]
    first = noises[0][0]
    columns += [np.roll(first, 1).ravel(), np.roll(first, 1, axis=0).ravel(), np.roll(first, 2).ravel()]
    assert_uncorrelated([column.tolist() for column in columns])


def test_noise_is_independent_of_the_other_draws_of_its_view() -> None:
    """Over many images: the first pixels, and their squares, against what else was drawn for them."""
    config = AugmentConfig(jitter=JitterConfig(p=1.0), blur_p=1.0)
    noisy, image = AugmentConfig(**BARE, noise_std=(0.1, 0.1)), Image.new("RGB", (4, 4), (128, 128, 128))
    pixels, drawn = [], []
    for index in range(3000):
        noise = views_of(image, noisy, 4, 2, 11, 4, index)[0, 0, :2].T.ravel() - 128.0
        pixels.append([*noise, *np.square(noise)])
        p = draw_parameters(config, (300, 400), 11, 4, index, 0)
        drawn.append([p.top, p.height, p.flip, p.jitter.brightness, p.jitter.hue, p.gray, p.blur.sigma])
    columns = [list(column) for rows in (pixels, drawn) for column in zip(*rows, strict=True)]
    top = len(pixels[0])
    assert_uncorrelated(columns, but=((top, top + 1),))  # a large crop cannot start low


def test_a_gray_image_stays_gray_and_a_colour_image_made_gray_does_not() -> None:
    gray = noise_of("L", (1, 2, 3), 0)
    assert_normal(spread(gray[0]))
    np.testing.assert_array_equal(gray[0], gray[1])
    np.testing.assert_array_equal(gray[0], gray[2])
    made_gray = AugmentConfig(**BARE | {"gray_p": 1.0}, noise_std=(STD, STD))
    view = views_of(photo(), made_gray, 24, 2, 1, 2, 3)[0].transpose(2, 0, 1)
    assert (view[0] != view[1]).any()
    assert (view[1] != view[2]).any()


def test_noise_comes_last_and_its_draws_do_not_depend_on_what_came_before() -> None:
    """The same noise on the finished view, whatever made it; dark and light pixels are cut off."""
    noise = 255 * STD * noise_of("RGB", (1, 2, 3), 1, STD).transpose(1, 2, 0)
    clean = views_of(photo(), AugmentConfig(solarize_p=1.0), SIZE, 2, 1, 2, 3)[1]
    noisy = views_of(photo(), AugmentConfig(solarize_p=1.0, noise_std=(0.0, STD)), SIZE, 2, 1, 2, 3)[1]
    np.testing.assert_array_equal(noisy, np.clip(clean + np.rint(noise), 0, 255))
    assert ((clean + noise) < 0).any()


def test_each_view_has_its_own_deviation_and_none_is_none() -> None:
    clean = views_of(photo(), AugmentConfig(), SIZE, 2, 1, 2, 3)
    for std in ((STD, 0.0), (0.0, STD)):
        noisy = views_of(photo(), AugmentConfig(noise_std=std), SIZE, 2, 1, 2, 3)
        assert [bool((noisy[view] != clean[view]).any()) for view in (0, 1)] == [value > 0 for value in std]


def test_the_noise_of_a_view_never_changes() -> None:
    """Levels off mid-gray, written down when the noise was first made."""
    assert (255 * STD * noise_of("RGB", (1, 2, 3), 1)[0, 0, :8]).round().astype(int).tolist() == [
        9,
        -9,
        -1,
        -1,
        7,
        3,
        6,
        -11,
    ]
