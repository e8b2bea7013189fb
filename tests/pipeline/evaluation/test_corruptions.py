"""The common corruptions: what they promise for every one, and how they depend on their key."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from pipeline.errors import ConfigError
from pipeline.evaluation.corruptions.corrupt import FUNCTIONS, corrupt
from pipeline.evaluation.corruptions.names import EXTRA, SEVERITIES, STANDARD, averaged, resolve
from pipeline.evaluation.corruptions.parameters import PARAMETERS, Edition, edition_for

ALL = STANDARD + EXTRA
NOT_MONOTONE = {
    "elastic_transform": {32: "at first the image is skewed, then rippled instead", 64: "", 224: ""},
    "saturate": {32: "at first colours are taken away, then added", 64: "", 224: ""},
    "spatter": {32: "at first water, then mud", 64: "", 224: ""},
    "glass_blur": {32: "at first blurred more in one pass, then less in two", 64: "", 224: ""},
    "frost": {32: "the image fades faster than the ice grows", 64: "", 224: ""},
    "motion_blur": {32: "severity 4 has a longer line, whose end weighs nothing"},
    "fog": {224: "severity 4 has as much fog as 3, only rougher"},
    "snow": {224: "severity 3 has as much snow as 2, in larger flakes"},
}
"""Where the published numbers themselves do not go one way in the distance of pixels, and why."""


@cache
def photographs(side: int) -> tuple[NDArray[np.uint8], ...]:
    pictures = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
    return tuple(
        np.array(Image.fromarray(picture[:300, :300]).resize((side, side), Image.Resampling.BICUBIC))
        for picture in pictures
    )


def distance(name: str, severity: int, side: int) -> float:
    """Mean distance of pixels from the clean images, in levels; several draws of each."""
    draws = 12 if side < 100 else 3
    found = [
        np.abs(corrupt(picture, name, severity, seed, index).astype(float) - picture).mean()
        for index, picture in enumerate(photographs(side))
        for seed in range(draws)
    ]
    return float(np.mean(found))


def test_the_names_are_those_of_the_paper_and_each_has_numbers() -> None:
    assert len(STANDARD) == 15
    assert len(EXTRA) == 4
    assert set(FUNCTIONS) == set(ALL)
    for table in PARAMETERS.values():
        assert set(table) == set(ALL)
        assert all(len(numbers) == 5 for numbers in table.values())


DIGESTS = {"cifar10-c": "411e6fc6b3fd1f4e", "tiny-imagenet-c": "e8125fc8e7a3fb43", "imagenet-c": "581c101ae3777dda"}
"""Of the numbers as they were compared with the published code; one that changes makes other benchmarks of these."""


@pytest.mark.parametrize("edition", DIGESTS)
def test_the_numbers_are_those_that_were_published(edition: Edition) -> None:
    text = json.dumps(PARAMETERS[edition], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest().startswith(DIGESTS[edition])


@pytest.mark.parametrize(
    ("side", "edition"),
    [(8, "cifar10-c"), (28, "cifar10-c"), (32, "cifar10-c"), (48, "tiny-imagenet-c"), (64, "tiny-imagenet-c"),
     (96, "tiny-imagenet-c"), (128, "imagenet-c"), (224, "imagenet-c"), (384, "imagenet-c")],
)  # fmt: skip
def test_the_size_of_the_images_says_which_numbers(side: int, edition: str) -> None:
    assert edition_for(side) == edition


@pytest.mark.parametrize("side", [32, *(pytest.param(side, marks=pytest.mark.slow) for side in (64, 224))])
@pytest.mark.parametrize("name", ALL)
def test_a_higher_severity_is_further_from_the_clean_image(name: str, side: int) -> None:
    found = [distance(name, severity, side) for severity in SEVERITIES]
    assert found[0] > 0.1
    if side not in NOT_MONOTONE.get(name, {}):
        assert found == sorted(found), f"{name} at {side} pixels: {found}"
    assert found[4] > found[0] or name == "elastic_transform"


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("side", [8, 28, 33, 50, 150])
def test_any_size_works_and_gray_stays_gray(name: str, side: int) -> None:
    picture = photographs(150)[0][:side, :side]
    before = picture.copy()
    gray = np.ascontiguousarray(picture[:, :, 1])
    for severity in SEVERITIES:
        coloured = corrupt(picture, name, severity, 0, 0)
        assert (coloured.shape, coloured.dtype) == ((side, side, 3), np.uint8)
        single = corrupt(gray, name, severity, 0, 0)
        assert (single.shape, single.dtype) == ((side, side), np.uint8)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("name", ALL)
def test_uniform_black_and_white_images_are_no_trouble(name: str) -> None:
    with np.errstate(all="raise"):
        for level in (0, 255):
            for shape in ((32, 32), (32, 32, 3)):
                for severity in SEVERITIES:
                    corrupt(np.full(shape, level, np.uint8), name, severity, 0, 0)


@pytest.mark.parametrize("name", ALL)
def test_the_bits_depend_on_the_key_and_on_nothing_else(name: str) -> None:
    picture = photographs(32)[0]
    keys = [(severity, index) for severity in (1, 5) for index in range(4)]
    forward = [corrupt(picture, name, severity, 7, index) for severity, index in keys]
    backward = [corrupt(picture, name, severity, 7, index) for severity, index in reversed(keys)][::-1]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda key: corrupt(picture, name, key[0], 7, key[1]), keys))
    for first, second, third in zip(forward, backward, threaded, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)
    drawn = {"brightness", "contrast", "saturate", "pixelate", "jpeg_compression", "defocus_blur", "gaussian_blur",
             "zoom_blur"}  # fmt: skip
    another = [corrupt(picture, name, 5, 7, 9), corrupt(picture, name, 5, 8, 0)]
    assert all(np.array_equal(forward[4], other) == (name in drawn) for other in another)


def test_two_corruptions_or_severities_do_not_share_their_draws() -> None:
    flat = np.full((32, 32), 128, np.uint8)
    first, second = (corrupt(flat, "gaussian_noise", severity, 0, 0).astype(float) for severity in (1, 5))
    other = corrupt(flat, "speckle_noise", 5, 0, 0).astype(float)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.15
    assert abs(np.corrcoef(second.ravel(), other.ravel())[0, 1]) < 0.15


def test_an_image_that_is_not_square_is_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        corrupt(np.zeros((32, 40), np.uint8), "fog", 1, 0, 0)


def test_names_are_resolved_in_the_order_of_the_paper() -> None:
    assert resolve("none") == ()
    assert resolve("standard") == STANDARD
    assert resolve("all") == ALL
    assert resolve(("spatter", "fog", "fog", "snow")) == ("snow", "fog", "spatter")
    with pytest.raises(ConfigError, match=r"^evaluation\.corruptions\.names: there is no corruption 'frosst'.*'frost'"):
        resolve(("fog", "frosst"))


def test_a_mean_is_over_the_standard_ones_where_there_are_any() -> None:
    assert averaged(ALL) == STANDARD
    assert averaged(("fog", "spatter")) == ("fog",)
    assert averaged(("spatter", "saturate")) == ("spatter", "saturate")


def test_levels_are_cut_off_and_not_rounded_as_in_the_published_files() -> None:
    gray = np.full((32, 32), 100, np.uint8)
    assert set(corrupt(gray, "brightness", 1, 0, 0).ravel()) == {112}  # 100 + 0.05 * 255 = 112.75
    assert set(corrupt(gray + np.uint8(150), "brightness", 5, 0, 0).ravel()) == {255}
