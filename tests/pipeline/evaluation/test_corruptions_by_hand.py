"""Each corruption's formula, on cases small enough to compute by hand or with the library that the authors used."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage import color, data

from pipeline.evaluation.corruptions import blur, digital, noise, weather
from pipeline.evaluation.corruptions.drawing import Draws
from pipeline.evaluation.corruptions.filters import gaussian, magnified, motion_blurred, plasma, sampled
from pipeline.evaluation.corruptions.frost_textures import COLOURS, TEXTURES, texture
from pipeline.evaluation.corruptions.parameters import PARAMETERS

DRAWS = Draws("test", 0)
RANDOM = np.random.default_rng(0)


def picture(side: int) -> NDArray[np.uint8]:
    image = Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.BICUBIC)
    return np.array(image)


def point(side: int = 41) -> NDArray[np.uint8]:
    """White in the middle of black."""
    image = np.zeros((side, side), np.uint8)
    image[side // 2, side // 2] = 255
    return image


class Fixed(Draws):
    """Draws that are given instead of drawn."""

    def __init__(self, value: float) -> None:
        self.value = value

    def normal(self, shape: tuple[int, ...], mean: float, std: float) -> NDArray[np.float64]:
        return np.full(shape, self.value * std + mean)

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> NDArray[np.float64]:
        return np.full(shape, low + self.value * (high - low))

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> NDArray[np.int64]:
        return np.full(shape, low + int(self.value * (high - low)), np.int64)

    def poisson(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        return rates


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.25, 0.7, 1.5, 6.0, 40.0])
@pytest.mark.parametrize(("truncate", "border"), [(4.0, "nearest"), (3.0, "reflect")])
def test_gaussian_is_scipys(sigma: float, truncate: float, border: str) -> None:
    for shape in ((24, 24), (24, 24, 3)):
        image = RANDOM.random(shape)
        sigmas = (sigma, sigma, 0)[: image.ndim]
        expected = ndimage.gaussian_filter(image, sigmas, mode=border, truncate=truncate)
        np.testing.assert_allclose(gaussian(image, sigma, truncate, border), expected, atol=1e-12)


@pytest.mark.parametrize("factor", [1.0, 1.01, 1.06, 1.3, 1.75, 3.0, 4.5])
@pytest.mark.parametrize("side", [8, 28, 33, 64])
def test_magnifying_is_scipys_zoom_of_the_middle(side: int, factor: float) -> None:
    image = RANDOM.random((side, side, 3))
    part = math.ceil(side / factor)
    first = (side - part) // 2
    whole = ndimage.zoom(image[first : first + part, first : first + part], (factor, factor, 1), order=1)
    trim = (whole.shape[0] - side) // 2
    expected = whole[trim : trim + side, trim : trim + side]
    np.testing.assert_allclose(magnified(image, factor), expected, atol=1e-9)
    np.testing.assert_allclose(magnified(image[:, :, 0], factor), expected[:, :, 0], atol=1e-9)


def test_sampling_is_scipys_map_coordinates() -> None:
    image = RANDOM.random((20, 30))
    rows, columns = RANDOM.uniform(-50, 70, (20, 30)), RANDOM.uniform(-80, 110, (20, 30))
    expected = ndimage.map_coordinates(image, [rows, columns], order=1, mode="reflect")
    np.testing.assert_allclose(sampled(image, rows, columns), expected, atol=1e-9)


def test_motion_blur_weighs_half_a_gaussian_along_its_line() -> None:
    weights = np.exp(-(np.arange(9) ** 2) / (2 * 3.0**2))
    row = np.rint(255 * weights / weights.sum())
    found = motion_blurred(point(), 4, 3.0, 0.0)  # a pixel looks to the right, so the point is smeared to the left
    np.testing.assert_array_equal(found[20, 12:21], row[::-1])
    assert found.sum() == row.sum()
    down = motion_blurred(point(), 4, 3.0, -90.0)
    np.testing.assert_array_equal(down[20:29, 20], row)
    steep = motion_blurred(point(), 4, 3.0, 45.0)
    total = weights.sum()  # on the diagonal the second and the third point of the line fall on one pixel
    assert steep[20, 20] == round(255 * weights[0] / total)
    assert steep[19, 19] == round(255 * weights[1:3].sum() / total)
    np.testing.assert_array_equal(motion_blurred(np.full((8, 8, 3), 77, np.uint8), 20, 15.0, 30.0), 77)


def test_plasma_fits_itself_and_spans_the_range() -> None:
    clouds = plasma(Draws("clouds"), 64, 2.0)
    assert clouds.shape == (64, 64)
    assert (clouds.min(), clouds.max()) == (0.0, 1.0)
    inside = np.abs(np.diff(clouds, axis=0)).mean()
    assert np.abs(clouds[0] - clouds[-1]).mean() < 2 * inside
    rough, smooth = (np.abs(np.diff(plasma(Draws("clouds"), 64, decay))).mean() for decay in (1.2, 3.0))
    assert rough > 3 * smooth


def test_plasma_on_four_points_by_hand() -> None:
    class Steps(Fixed):
        def __init__(self) -> None:
            self.values = iter([0.1, 0.2, 0.3])

        def uniform(self, shape: tuple[int, ...], low: float, high: float) -> NDArray[np.float64]:
            return np.full(shape, next(self.values))

    # From 0: the middle is 100 * 0.1 = 10; beside it (0 + 0 + 10 + 10) / 4 + 100 * 0.2 = 25; below 5 + 30 = 35.
    np.testing.assert_allclose(plasma(Steps(), 2, 2.0), np.array([[0, 25], [35, 10]]) / 35)


def test_plasma_puts_a_point_amid_its_four_neighbours_across_borders_too() -> None:
    class SmoothAtLast(Draws):
        def uniform(self, shape: tuple[int, ...], low: float, high: float) -> NDArray[np.float64]:
            return np.zeros(shape) if shape == (4, 4) else super().uniform(shape, low, high)

    clouds = plasma(SmoothAtLast("clouds"), 8, 2.0)
    across, down = ([np.roll(clouds, step, axis) for step in (-1, 1)] for axis in (1, 0))
    diagonal = [np.roll(column, step, 0) for column in across for step in (-1, 1)]
    np.testing.assert_allclose(clouds[1::2, 1::2], (sum(diagonal) / 4)[1::2, 1::2])
    beside = (sum(across) + sum(down)) / 4
    np.testing.assert_allclose(clouds[0::2, 1::2], beside[0::2, 1::2])
    np.testing.assert_allclose(clouds[1::2, 0::2], beside[1::2, 0::2])


def test_noise_formulas() -> None:
    image = np.array([[0, 51], [102, 255]], np.uint8)
    np.testing.assert_allclose(noise.gaussian_noise(image, Fixed(2.0), 0.1), image + 51.0)
    np.testing.assert_allclose(noise.speckle_noise(image, Fixed(2.0), 0.1), image * 1.2)
    np.testing.assert_allclose(noise.shot_noise(image, Fixed(0.0), 25), image)
    big = np.full((400, 400), 102, np.uint8)
    counted = noise.shot_noise(big, DRAWS, 25) / 255 * 25
    np.testing.assert_allclose(counted, np.rint(counted), atol=1e-9)
    assert counted.mean() == pytest.approx(10, abs=0.05)
    assert counted.var() == pytest.approx(10, abs=0.2)
    struck = noise.impulse_noise(np.full((400, 400, 3), 102, np.uint8), DRAWS, 0.2)
    assert (struck == 255).mean() == pytest.approx(0.1, abs=0.003)
    assert (struck == 0).mean() == pytest.approx(0.1, abs=0.003)
    assert (struck[..., 0] == struck[..., 1]).mean() < 0.75  # channels for themselves
    drawn = noise.gaussian_noise(np.full((400, 400), 100, np.uint8), DRAWS, 0.1) - 100
    assert drawn.std() == pytest.approx(25.5, abs=0.3)


def test_blur_formulas() -> None:
    image = picture(32)
    expected = ndimage.gaussian_filter(image / 255, (2, 2, 0), mode="nearest") * 255
    np.testing.assert_allclose(blur.gaussian_blur(image, DRAWS, 2.0), expected, atol=1e-9)
    disk = blur.disk(3, 0.1)
    assert disk.shape == (17, 17)
    assert np.count_nonzero(disk > 1e-6) == 29  # points of the grid within 3 of the middle
    assert disk.sum() == pytest.approx(1)
    assert blur.disk(10, 0.5).shape == (21, 21)
    np.testing.assert_allclose(blur.defocus_blur(point(), DRAWS, 3, 0.1)[12:29, 12:29], 255 * disk, atol=1e-9)
    zoomed = blur.zoom_blur(image, DRAWS, 1.06, 0.02)
    layers = [image / 255, *(magnified(image / 255, f) for f in (1.0, 1.02, 1.04, 1.06))]
    np.testing.assert_allclose(zoomed, 255 * np.mean(layers, axis=0), atol=1e-9)
    horizontal = blur.motion_blur(image, Fixed(0.5), 6, 2.0)  # halfway from -45 to 45 degrees
    np.testing.assert_array_equal(horizontal, motion_blurred(image, 6, 2.0, 0.0))


def test_glass_blur_copies_one_pixel_after_another_from_the_last_back() -> None:
    side, reach = 12, 2
    found = blur.copied_from(Draws("glass"), side, reach)
    steps = Draws("glass").integers((2, side - 2 * reach, side - 2 * reach), -reach, reach)
    expected = np.arange(side * side).reshape(side, side)
    inner = range(reach + 1, side - reach + 1)
    for row in reversed(inner):
        for column in reversed(inner):
            down, right = steps[:, row - reach - 1, column - reach - 1]
            expected[row, column] = expected[row + down, column + right]
    np.testing.assert_array_equal(found, expected.ravel())
    assert len(set(found.tolist())) < side * side  # copied, not swapped
    flat = np.full((16, 16, 3), 93, np.uint8)
    np.testing.assert_allclose(blur.glass_blur(flat, DRAWS, 0.7, 1, 2), 93, atol=1)


def test_weather_formulas() -> None:
    image = picture(32)
    dry = weather.snow(image, Fixed(0.0), 0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.75)  # no noise reaches 0.6
    x = image / 255
    luma = x @ np.array([0.299, 0.587, 0.114])
    whitened = np.maximum(x, luma[:, :, np.newaxis] * 1.5 + 0.5)
    np.testing.assert_allclose(dry, 255 * (0.75 * x + 0.25 * whitened), atol=1e-9)
    falling = weather.snow(image, Fixed(3.0), 0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.75)  # 0.7 everywhere, twice
    np.testing.assert_allclose(falling - dry, 2 * int(0.7 * 255), atol=1e-9)

    clouds = plasma(Draws("fog"), 32, 2.5)[:32, :32, np.newaxis]
    brightest = x.max()
    expected = 255 * (x + 0.75 * clouds) * brightest / (brightest + 0.75)
    np.testing.assert_allclose(weather.fog(image, Draws("fog"), 0.75, 2.5), expected, atol=1e-9)

    ice = texture(0, 0.2, 32)[:32, :32]
    np.testing.assert_allclose(weather.frost(image, Fixed(0.0), 0.9, 0.4, 0.2), 0.9 * image + 0.4 * ice, atol=1e-9)

    covered = weather.spatter(image, Fixed(3.0), 0.65, 0.3, 1.0, 0.65, 1.5, 1)  # mud everywhere
    np.testing.assert_allclose(covered, np.broadcast_to([63, 42, 20], image.shape), atol=1e-9)
    np.testing.assert_allclose(weather.spatter(image, Fixed(0.0), 0.6, 0.1, 1.0, 0.7, 0.5, 1), image, atol=1e-9)
    np.testing.assert_allclose(weather.spatter(image, Fixed(0.0), 0.6, 0.1, 1.0, 0.7, 0.5, 0), image, atol=1e-9)
    wet = weather.spatter(image, Draws("rain"), 0.65, 0.3, 1.0, 0.69, 0.5, 0) - image
    assert wet.min() > -1e-9
    np.testing.assert_allclose(wet.max(axis=(0, 1)), 0.5 * np.array([175, 238, 238]), atol=1e-9)
    np.testing.assert_allclose(wet[..., 1] * 175, wet[..., 0] * 238, atol=1e-6)


def test_ice_has_the_colours_of_the_photographs_it_stands_for() -> None:
    for number in range(TEXTURES):
        ice = texture(number, 1, 224)
        mean, std = COLOURS[number]
        np.testing.assert_allclose(ice.mean(axis=(0, 1)), mean, atol=3)
        np.testing.assert_allclose(ice.std(axis=(0, 1)), std, rtol=0.15)
        assert min(ice.shape[:2]) > 224
    assert texture(0, 0.2, 32).shape[0] > 32
    assert texture(0, 1, 600).shape[0] > 600


def test_digital_formulas() -> None:
    image = picture(32)
    mean = image.mean(axis=(0, 1))
    np.testing.assert_allclose(digital.contrast(image, DRAWS, 0.3), mean + 0.3 * (image - mean), atol=1e-9)

    hsv = color.rgb2hsv(image / 255)
    hsv[:, :, 2] = np.clip(hsv[:, :, 2] + 0.3, 0, 1)
    np.testing.assert_allclose(digital.brightness(image, DRAWS, 0.3), 255 * color.hsv2rgb(hsv), atol=1e-9)
    gray = image[:, :, 0]
    np.testing.assert_allclose(digital.brightness(gray, DRAWS, 0.3), np.minimum(gray + 0.3 * 255, 255), atol=1e-9)

    mixed = image.copy()
    mixed[:8] = mixed[:8, :, :1]  # gray pixels, which have no hue
    for factor, amount in ((0.3, 0.0), (5.0, 0.1), (20.0, 0.2)):
        hsv = color.rgb2hsv(mixed / 255)
        hsv[:, :, 1] = np.clip(hsv[:, :, 1] * factor + amount, 0, 1)
        found = digital.saturate(mixed, DRAWS, factor, amount)
        np.testing.assert_allclose(found, 255 * color.hsv2rgb(hsv), atol=1e-9)
    np.testing.assert_array_equal(digital.saturate(gray, DRAWS, 20.0, 0.2), gray)

    small = Image.fromarray(image).resize((20, 20), Image.Resampling.BOX)
    expected = np.asarray(small.resize((32, 32), Image.Resampling.BOX))
    np.testing.assert_array_equal(digital.pixelate(image, DRAWS, 0.65), expected)

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=40)
    np.testing.assert_array_equal(digital.jpeg_compression(image, DRAWS, 40), np.asarray(Image.open(file)))


def test_elastic_transform_skews_and_then_ripples() -> None:
    image = picture(48)
    np.testing.assert_allclose(digital.elastic_transform(image, Fixed(0.5), 0.1, 0.04, 0.0), image, atol=1e-4)
    # All three points move by (5, 5) of 48 pixels, to the right and down, and the field is 0.
    moved = digital.elastic_transform(image, Fixed(1.0), 0.0, 0.0, 5 / 48)
    np.testing.assert_allclose(moved[5:, 5:], image[:-5, :-5], atol=1e-4)
    # A field of 1 everywhere, 0.0625 of the side strong, reads 3 pixels further.
    rippled = digital.elastic_transform(image, Fixed(1.0), 0.0625, 0.04, 0.0)
    np.testing.assert_allclose(rippled[:-3, :-3], image[3:, 3:], atol=1e-4)


@pytest.mark.parametrize(
    ("edition", "name", "severity", "numbers"),
    [
        ("imagenet-c", "gaussian_noise", 5, (0.38,)),
        ("imagenet-c", "glass_blur", 3, (1, 2, 3)),
        ("imagenet-c", "jpeg_compression", 1, (25,)),
        ("cifar10-c", "shot_noise", 1, (500,)),
        ("cifar10-c", "motion_blur", 5, (9, 2.5)),
        ("cifar10-c", "jpeg_compression", 5, (40,)),
        ("tiny-imagenet-c", "fog", 4, (1.5, 2)),
    ],
)
def test_numbers_as_published(edition: str, name: str, severity: int, numbers: tuple[float, ...]) -> None:
    assert PARAMETERS[edition][name][severity - 1] == numbers
