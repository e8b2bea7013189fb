"""The third view: a small crop of the same image, and nothing done to it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AugmentConfig
from pipeline.data.augment.parameters import PATCH, draw_parameters
from pipeline.data.augment.pil_operations import ViewParameters
from pipeline.data.augment.view_kinds import patch_augment
from tests.pipeline.data.samples import assert_uncorrelated, assert_uniform, photo, views_of

EVERYTHING = AugmentConfig(flip_p=1.0, gray_p=1.0, blur_p=1.0, solarize_p=1.0, noise_std=(0.1, 0.1))
SAMPLES = 4000
HEIGHT, WIDTH = 600, 800


@pytest.fixture(scope="module")
def patches() -> list[ViewParameters]:
    return [
        draw_parameters(patch_augment(EVERYTHING), (HEIGHT, WIDTH), 11, 4, index, PATCH) for index in range(SAMPLES)
    ]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_patch_is_a_resized_crop_whatever_the_other_views_are(mode: str) -> None:
    image = photo(mode)
    for index in range(50):
        views = views_of(image, EVERYTHING, 24, 3, 1, 0, index)
        p = draw_parameters(patch_augment(EVERYTHING), (40, 52), 1, 0, index, PATCH)
        corner = image.crop((p.left, p.top, p.left + p.width, p.top + p.height))
        expected = corner.resize((24, 24), Image.Resampling.BICUBIC).convert("RGB")
        np.testing.assert_array_equal(views[PATCH], np.asarray(expected))


@pytest.mark.parametrize("backend", ["fast", "pil"])
def test_the_patch_leaves_the_two_views_as_they_are(backend: str) -> None:
    for index in range(50):
        two = views_of(photo(), AugmentConfig(), 24, 2, 1, 0, index, backend)
        three = views_of(photo(), AugmentConfig(), 24, 3, 1, 0, index, backend)
        np.testing.assert_array_equal(two, three[:2])


def test_area_and_shape_and_place_are_uniform(patches: list[ViewParameters]) -> None:
    """Whole pixels blur the ends of a range: half a pixel of a side of 170 is 0.3 %."""
    assert all(p == ViewParameters(p.top, p.left, p.height, p.width) for p in patches)
    area = np.asarray([p.height * p.width / (HEIGHT * WIDTH) for p in patches])
    assert area.min() > 0.05 * 0.994
    assert area.max() < 0.1 * 1.006
    assert_uniform(area.clip(0.05, 0.1).tolist(), 0.05, 0.1)
    ratio = np.log([p.width / p.height for p in patches])
    assert_uniform(ratio.clip(-np.log(4 / 3), np.log(4 / 3)).tolist(), -np.log(4 / 3), np.log(4 / 3))
    assert_uniform([(p.top + 0.5) / (HEIGHT - p.height + 1) for p in patches], 0.0, 1.0)
    assert_uniform([(p.left + 0.5) / (WIDTH - p.width + 1) for p in patches], 0.0, 1.0)


def test_the_patch_is_drawn_apart_from_the_views(patches: list[ViewParameters]) -> None:
    views = [
        [draw_parameters(AugmentConfig(), (HEIGHT, WIDTH), 11, 4, i, view) for i in range(SAMPLES)] for view in (0, 1)
    ]
    columns = [[float(value(p)) for p in part] for part in (patches, *views) for value in (area, place)]
    columns += [[float(p.flip) for p in views[0]], [float(p.gray) for p in views[1]]]
    assert_uncorrelated(columns)


def area(p: ViewParameters) -> float:
    return p.height * p.width


def place(p: ViewParameters) -> float:
    """Between 0 and 1 whatever the size of the crop."""
    return (p.left + 0.5) / (WIDTH - p.width + 1)


def test_the_scale_is_the_patchs_own() -> None:
    config = patch_augment(AugmentConfig(crop_scale=(0.5, 1.0), patch_scale=(0.3, 0.4)))
    for index in range(200):
        p = draw_parameters(config, (HEIGHT, WIDTH), 0, 0, index, PATCH)
        assert 0.29 < p.height * p.width / (HEIGHT * WIDTH) < 0.41
