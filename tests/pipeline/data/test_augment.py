"""The augmentation: equal to torchvision's to the bit given its parameters, and drawn as torchvision draws."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, RandomResizedCrop, Resize
from torchvision.transforms import functional as tf

from pipeline.config import Augment
from pipeline.config import Jitter as JitterConfig
from pipeline.data import augment
from pipeline.data.augment import Jitter, ViewParameters, draw_parameters, evaluation_view, two_views

IDENTITY = ViewParameters(0, 0, 40, 52, False, None, False, None, False)
SAMPLES = 4000


def photo(mode: str = "RGB", height: int = 40, width: int = 52) -> Image.Image:
    """Smooth noise: all levels and hues, edges, no symmetry."""
    channels = () if mode == "L" else (3,)
    noise = np.random.default_rng(7).integers(0, 256, (height, width, *channels), dtype=np.uint8)
    return ImageOps.autocontrast(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.0)))


def torchvision_view(image: Image.Image, p: ViewParameters, size: int) -> np.ndarray:
    """The released `Transform`, written with torchvision and PIL's own classes."""
    image = tf.resized_crop(
        image.convert("RGB"), p.top, p.left, p.height, p.width, [size, size], InterpolationMode.BICUBIC
    )
    if p.flip:
        image = tf.hflip(image)
    if p.jitter:
        steps = [
            lambda i, f: tf.adjust_brightness(i, f),
            lambda i, f: tf.adjust_contrast(i, f),
            lambda i, f: tf.adjust_saturation(i, f),
            lambda i, f: tf.adjust_hue(i, f),
        ]
        factors = (p.jitter.brightness, p.jitter.contrast, p.jitter.saturation, p.jitter.hue)
        for operation in p.jitter.order:
            image = steps[operation](image, factors[operation])
    if p.gray:
        image = tf.to_grayscale(image, 3)
    if p.blur_radius is not None:
        image = image.filter(ImageFilter.GaussianBlur(p.blur_radius))
    if p.solarize:
        image = ImageOps.solarize(image, 128)
    return np.asarray(image).transpose(2, 0, 1)


def view_of(image: Image.Image, p: ViewParameters, size: int) -> np.ndarray:
    return np.asarray(augment.apply(image, p, size).convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("view", [0, 1])
def test_drawn_views_equal_torchvision_to_the_bit(mode: str, view: int) -> None:
    """For mode L this is also the proof that the one-channel shortcut is exact: the reference works on RGB."""
    config = Augment(solarize_p=(0.5, 0.5), blur_p=(0.7, 0.7))
    image = photo(mode)
    for index, size in itertools.product(range(150), (24, 37)):
        p = draw_parameters(config, (image.height, image.width), 3, 0, index, view)
        np.testing.assert_array_equal(view_of(image, p, size), torchvision_view(image, p, size), err_msg=str(p))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_every_order_of_the_colour_jitter_equals_torchvision(order: tuple[int, ...]) -> None:
    for mode in ("RGB", "L"):
        p = replace(IDENTITY, jitter=Jitter(1.37, 0.61, 1.19, -0.083, order), solarize=True)
        np.testing.assert_array_equal(view_of(photo(mode), p, 32), torchvision_view(photo(mode), p, 32))


@pytest.mark.parametrize("gray", [False, True])
def test_extreme_factors_equal_torchvision(gray: bool) -> None:
    for factor, hue in ((0.0, 0.5), (0.001, -0.5), (2.5, 0.003), (1.0, -0.001)):
        p = replace(IDENTITY, jitter=Jitter(factor, factor, factor, hue, (3, 1, 0, 2)), gray=gray, blur_radius=0.1)
        np.testing.assert_array_equal(view_of(photo(), p, 32), torchvision_view(photo(), p, 32))


def test_a_hue_that_is_switched_off_leaves_colours_alone() -> None:
    """Going to HSV and back rounds; torchvision does not go there when hue is 0, and neither do we."""
    p = replace(IDENTITY, jitter=Jitter(1.0, 1.0, 1.0, 0.0, (3, 0, 1, 2)))
    np.testing.assert_array_equal(view_of(photo(), p, 32), view_of(photo(), replace(p, jitter=None), 32))


def test_two_views_shape_channels_and_destination() -> None:
    out = np.zeros((2, 3, 20, 20), np.uint8)
    views = two_views(photo("L"), Augment(), 20, 1, 2, 3, out=out)
    assert views is out
    assert views.dtype == np.uint8
    np.testing.assert_array_equal(views[:, 0], views[:, 1])
    np.testing.assert_array_equal(views[:, 0], views[:, 2])
    for view in range(2):
        p = draw_parameters(Augment(), (40, 52), 1, 2, 3, view)
        np.testing.assert_array_equal(views[view], view_of(photo("L"), p, 20))
    assert two_views(photo(), Augment(), 24, 1, 2, 3).shape == (2, 3, 24, 24)


def test_every_part_of_the_key_matters_and_nothing_else() -> None:
    keys = list(itertools.product((0, 1, 2**31 - 1), (0, 1), (0, 1, 2**40), (0, 1)))
    drawn = {key: draw_parameters(Augment(), (300, 400), *key) for key in keys}
    assert len(set(drawn.values())) == len(keys)
    assert all(draw_parameters(Augment(), (300, 400), *key) == drawn[key] for key in reversed(keys))


def test_switching_an_operation_off_does_not_shift_the_other_draws() -> None:
    off = Augment(flip_p=0.0, gray_p=0.0, blur_p=(0.0, 0.0), jitter=JitterConfig(p=0.0), solarize_p=(0.0, 0.0))
    on = Augment(flip_p=1.0, gray_p=1.0, blur_p=(1.0, 1.0), jitter=JitterConfig(p=1.0), solarize_p=(1.0, 1.0))
    mixed = Augment()
    for index in range(200):
        nothing, everything, some = (draw_parameters(c, (300, 400), 5, 1, index, 1) for c in (off, on, mixed))
        box = ("top", "left", "height", "width")
        assert [getattr(nothing, k) for k in box] == [getattr(everything, k) for k in box]
        assert some.jitter in (None, everything.jitter)
        assert some.blur_radius in (None, everything.blur_radius)
        assert (nothing.flip, nothing.jitter, nothing.gray, nothing.blur_radius, nothing.solarize) == (
            False, None, False, None, False,
        )  # fmt: skip
        assert everything.jitter is not None
        assert everything.blur_radius is not None
        assert (everything.flip, everything.gray, everything.solarize) == (True, True, True)


@pytest.fixture(scope="module")
def drawn() -> dict[int, list[ViewParameters]]:
    return {v: [draw_parameters(Augment(), (300, 400), 11, 4, i, v) for i in range(SAMPLES)] for v in (0, 1)}


def share(values: list[bool]) -> float:
    return sum(values) / len(values)


def assert_uniform(values: list[float], low: float, high: float) -> None:
    """Kolmogorov-Smirnov distance to the uniform distribution; 1.95 / sqrt(n) is the 0.1 % point."""
    ordered = np.sort((np.asarray(values) - low) / (high - low))
    assert ordered[0] >= 0
    assert ordered[-1] <= 1
    distance = np.abs(ordered - (np.arange(len(ordered)) + 0.5) / len(ordered)).max()
    assert distance < 1.95 / len(ordered) ** 0.5


def test_probabilities_are_the_released_ones(drawn: dict[int, list[ViewParameters]]) -> None:
    expected = {0: (0.5, 0.8, 0.2, 1.0, 0.0), 1: (0.5, 0.8, 0.2, 0.1, 0.2)}
    for view, parameters in drawn.items():
        found = (
            share([p.flip for p in parameters]),
            share([p.jitter is not None for p in parameters]),
            share([p.gray for p in parameters]),
            share([p.blur_radius is not None for p in parameters]),
            share([p.solarize for p in parameters]),
        )
        for probability, value in zip(expected[view], found, strict=True):
            assert value == pytest.approx(probability, abs=4 * (probability * (1 - probability) / SAMPLES) ** 0.5)


def test_factors_and_radii_are_uniform_and_orders_equally_likely(drawn: dict[int, list[ViewParameters]]) -> None:
    jitters = [p.jitter for p in drawn[0] if p.jitter]
    assert_uniform([j.brightness for j in jitters], 0.6, 1.4)
    assert_uniform([j.contrast for j in jitters], 0.6, 1.4)
    assert_uniform([j.saturation for j in jitters], 0.8, 1.2)
    assert_uniform([j.hue for j in jitters], -0.1, 0.1)
    assert_uniform([p.blur_radius for p in drawn[0] if p.blur_radius], 0.1, 2.0)
    counts = {order: sum(j.order == order for j in jitters) for order in itertools.permutations(range(4))}
    mean = len(jitters) / 24
    chi_squared = sum((count - mean) ** 2 / mean for count in counts.values())
    assert chi_squared < 49.7  # 0.1 % point for 23 degrees of freedom


def test_views_epochs_and_operations_are_independent(drawn: dict[int, list[ViewParameters]]) -> None:
    later = [draw_parameters(Augment(), (300, 400), 11, 5, i, 0) for i in range(SAMPLES)]
    columns = [[float(p.height * p.width) for p in part] for part in (drawn[0], drawn[1], later)]
    columns += [[float(p.flip) for p in drawn[0]], [float(p.gray) for p in drawn[0]], [p.top for p in drawn[0]]]
    columns += [[p.blur_radius or 0.0 for p in drawn[0]], [float(p.jitter is not None) for p in drawn[0]]]
    correlation = np.corrcoef(np.asarray(columns)) - np.eye(len(columns))
    correlation[0, 5] = correlation[5, 0] = 0.0  # a large crop cannot start low: that dependence is right
    assert np.abs(correlation).max() < 4 / SAMPLES**0.5


@pytest.mark.parametrize(("height", "width"), [(300, 400), (28, 28), (60, 400), (400, 90)])
def test_crop_boxes_are_distributed_as_torchvision_draws_them(height: int, width: int) -> None:
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    reference = np.asarray([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(SAMPLES)])
    ours = [draw_parameters(Augment(), (height, width), 2, 0, i, 0) for i in range(SAMPLES)]
    boxes = np.asarray([(p.top, p.left, p.height, p.width) for p in ours])
    assert (boxes >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= height).all()
    assert (boxes[:, 1] + boxes[:, 3] <= width).all()
    for column in range(4):
        grid = np.union1d(boxes[:, column], reference[:, column])
        cdfs = [np.searchsorted(np.sort(b[:, column]), grid, side="right") / SAMPLES for b in (boxes, reference)]
        assert np.abs(cdfs[0] - cdfs[1]).max() < 1.95 * (2 / SAMPLES) ** 0.5  # two-sample, 0.1 % point


@pytest.mark.parametrize(("height", "width"), [(10, 400), (400, 10), (30, 31)])
def test_the_fallback_is_torchvisions_centre_crop(height: int, width: int) -> None:
    """Boxes of the whole area hardly ever fit; then all ten tries fail."""
    scale = (0.9999, 1.0)
    reference = RandomResizedCrop.get_params(torch.empty(1, height, width), [1.0, 1.0], [3 / 4, 4 / 3])
    boxes = [draw_parameters(Augment(crop_scale=scale), (height, width), 0, 0, i, 0) for i in range(20)]
    found = {(p.top, p.left, p.height, p.width) for p in boxes}
    if width / height > 4 / 3 or width / height < 3 / 4:
        assert found == {tuple(reference)}
    else:
        assert (0, 0, height, width) in found


@pytest.mark.parametrize(("height", "width"), [(40, 52), (53, 41), (300, 224), (224, 225)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_evaluation_view_equals_torchvisions(height: int, width: int, mode: str) -> None:
    image = photo(mode, height, width)
    for size, short in ((28, 32), (224, 256)):
        reference = Compose([Resize(short), CenterCrop(size)])(image.convert("RGB"))
        view = evaluation_view(image, size)
        np.testing.assert_array_equal(view, np.asarray(reference).transpose(2, 0, 1))
        assert view.flags.c_contiguous


def test_an_image_of_the_right_size_is_evaluated_as_it_is() -> None:
    image = photo("L", 28, 28)
    np.testing.assert_array_equal(evaluation_view(image, 28), np.stack([np.asarray(image)] * 3))
