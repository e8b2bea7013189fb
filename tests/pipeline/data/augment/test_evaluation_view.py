"""The view that is evaluated on: torchvision's bits with PIL, within a level of them with the fast backend."""

from __future__ import annotations

import numpy as np
import pytest
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from pipeline.data.augment.evaluation_view import evaluation_view
from tests.pipeline.data.samples import photo

SIZES = [(40, 52), (53, 41), (300, 224), (224, 225)]


def torchvisions(mode: str, height: int, width: int, size: int, short: int, interpolation: str) -> np.ndarray:
    transform = Compose([Resize(short, InterpolationMode(interpolation)), CenterCrop(size)])
    return np.asarray(transform(photo(mode, height, width).convert("RGB")))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_evaluation_view_equals_torchvisions(height: int, width: int, mode: str, interpolation: str) -> None:
    for size, short in ((28, 32), (224, 256)):
        view = evaluation_view(photo(mode, height, width), size, interpolation)
        np.testing.assert_array_equal(view, torchvisions(mode, height, width, size, short, interpolation))
        assert view.flags.c_contiguous


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_fast_one_is_within_two_levels(height: int, width: int, mode: str, interpolation: str) -> None:
    for size, short in ((28, 32), (224, 256)):
        view = evaluation_view(photo(mode, height, width), size, interpolation, "fast")
        assert (view.shape, view.dtype, view.flags.c_contiguous) == ((size, size, 3), np.uint8, True)
        difference = np.abs(view - torchvisions(mode, height, width, size, short, interpolation).astype(int))
        assert difference.max() <= 2
        assert difference.mean() < 0.3


def test_evaluation_is_bilinear_with_pil_unless_asked_otherwise() -> None:
    image = photo()
    default, bilinear, bicubic = (evaluation_view(image, 28, *kind) for kind in ((), ("bilinear", "pil"), ("bicubic",)))
    np.testing.assert_array_equal(default, bilinear)
    assert (bilinear != bicubic).any()


@pytest.mark.parametrize("backend", ["fast", "pil"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_image_of_the_right_size_is_evaluated_as_it_is(interpolation: str, backend: str) -> None:
    image = photo("L", 28, 28)
    view = evaluation_view(image, 28, interpolation, backend)
    np.testing.assert_array_equal(view, np.stack([np.asarray(image)] * 3, axis=2))
