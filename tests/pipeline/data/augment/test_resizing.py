"""Resizing of crops: PIL's to a level, in place if PyTorch can, and the same bits if it cannot."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.augment import resizing
from pipeline.data.augment.resizing import Resizer, channels_first, fastest_resize
from tests.pipeline.data.samples import photo

SHAPES = [(40, 52), (17, 90), (24, 24), (1, 1), (1, 60), (60, 1), (300, 7)]


@pytest.fixture
def fresh() -> Iterator[None]:
    """The choice is made once a process; here, once a test."""
    fastest_resize.cache_clear()
    yield
    fastest_resize.cache_clear()


def resized(crop: np.ndarray, size: int, by: Resizer | None = None) -> np.ndarray:
    out = np.zeros((size, size, 3), np.uint8)
    (by or Resizer())(crop, channels_first(out))
    return out


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_it_is_pils_bicubic_to_two_levels(height: int, width: int, mode: str) -> None:
    image = photo(mode, 300, 100).crop((0, 0, width, height))
    for size in (16, 37, 96):
        expected = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC).convert("RGB")).astype(int)
        difference = np.abs(resized(np.asarray(image), size) - expected)
        assert difference.max() <= 2
        assert difference.mean() < 0.3


def test_a_crop_of_an_image_is_resized_as_a_copy_of_it() -> None:
    one, image = Resizer(), np.asarray(photo("RGB", 60, 80))
    for top, left, height, width in ((0, 0, 60, 80), (10, 20, 30, 31), (59, 0, 1, 80), (0, 79, 60, 1)):
        crop = image[top : top + height, left : left + width]
        np.testing.assert_array_equal(resized(crop, 24, one), resized(np.ascontiguousarray(crop), 24))


@pytest.mark.usefixtures("fresh")
def test_this_pytorch_has_the_kernel_that_writes_in_place() -> None:
    """If this fails, a new version of PyTorch has changed a private function: crops take a third longer until then."""
    assert fastest_resize() is resizing._in_place


def _gone(source: torch.Tensor, out: torch.Tensor) -> None:
    raise AttributeError("'_OpNamespace' 'aten' object has no attribute '_upsample_bicubic2d_aa'")


def _called_otherwise(source: torch.Tensor, out: torch.Tensor) -> None:
    raise TypeError("got an unexpected keyword argument 'out'")


def _off_by_one(source: torch.Tensor, out: torch.Tensor) -> None:
    resizing._public(source, out)
    out[0, 0, 0, 0] += 1


def _does_nothing(source: torch.Tensor, out: torch.Tensor) -> None:
    pass


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("defect", [_gone, _called_otherwise, _off_by_one, _does_nothing])
def test_another_kernel_is_not_trusted_and_the_public_one_gives_the_same_bits(
    defect: resizing.Resize, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop = np.asarray(photo("RGB", 50, 70))
    expected = resized(crop, 33)
    fastest_resize.cache_clear()
    monkeypatch.setattr(resizing, "_in_place", defect)
    assert fastest_resize() is resizing._public
    np.testing.assert_array_equal(resized(crop, 33), expected)
