"""Normalisation: equal to torchvision's to the bit."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import functional as tf

from pipeline.config import DataConfig
from pipeline.data.augment.normalize import Normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ALL_LEVELS = torch.arange(256, dtype=torch.uint8).view(16, 16, 1).repeat(1, 1, 3)


@pytest.fixture
def normalize() -> Normalize:
    return Normalize(MEAN, STD)


def test_every_level_equals_to_tensor_and_normalize(normalize: Normalize) -> None:
    expected = tf.normalize(tf.to_tensor(ALL_LEVELS.numpy()), MEAN, STD)
    assert normalize(ALL_LEVELS).dtype == torch.float32
    assert torch.equal(normalize(ALL_LEVELS), expected)


def test_batches_of_views_and_strided_input(normalize: Normalize) -> None:
    views = torch.randint(0, 256, (2, 5, 8, 9, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = views.clone()
    result = normalize(views)
    assert torch.equal(views, before)
    assert result.shape == (2, 5, 3, 8, 9)
    assert result.is_contiguous()
    expected = tf.normalize(tf.to_tensor(views[1, 4].numpy()), MEAN, STD)
    assert torch.equal(result[1, 4], expected)
    assert torch.equal(normalize(views[1, 4]), expected)
    assert torch.equal(normalize(views.transpose(-3, -2)), result.transpose(-1, -2))
    assert normalize(views.transpose(-3, -2)).is_contiguous()


def test_other_dtypes(normalize: Normalize) -> None:
    exact = tf.normalize(ALL_LEVELS.permute(2, 0, 1).double().div(255), MEAN, STD)
    assert torch.equal(normalize(ALL_LEVELS, torch.float64), exact)
    assert torch.equal(normalize(ALL_LEVELS, torch.bfloat16), normalize(ALL_LEVELS).bfloat16())


def test_floating_point_passes_unchanged(normalize: Normalize) -> None:
    ready = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert normalize(ready) is ready


def test_what_is_not_an_image_is_refused(normalize: Normalize) -> None:
    with pytest.raises(TypeError, match="uint8"):
        normalize(torch.zeros(3, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\[\.\.\., H, W, 3\], got \[3, 4, 4\]"):
        normalize(torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_images_are_normalised_with_the_numbers_of_imagenet_unless_told_otherwise() -> None:
    assert (DataConfig().mean, DataConfig().std) == (MEAN, STD)
