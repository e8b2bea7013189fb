"""The two-view pipeline of the released Barlow Twins code, as everybody runs it: torchvision's classes on PIL images.

Its `Transform` (https://github.com/facebookresearch/barlowtwins, main.py) is what the feed is compared with: floats,
normalised, one tensor for both views. A module-level class, so that a DataLoader's worker processes can have it.
"""

from __future__ import annotations

import io
import random

import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class RandomBlur:
    """PIL's Gaussian blur with a standard deviation of 0.1 to 2.0 pixels, with probability `p`."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        if random.random() >= self.p:
            return image
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


class RandomSolarization:
    """Inverts levels from 128 on, with probability `p`."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.solarize(image) if random.random() < self.p else image


class ReleasedTransform:
    """Two views of an image, float32 `[2, 3, size, size]`.

    Args:
        size: of the views, in pixels.
        crop_only: no more than the random resized crop.
    """

    def __init__(self, size: int = 224, crop_only: bool = False) -> None:
        self.views = [self._view(size, crop_only, *p) for p in ((1.0, 0.0), (0.1, 0.2))]

    @staticmethod
    def _view(size: int, crop_only: bool, blur: float, solarize: float) -> transforms.Compose:
        crop = transforms.RandomResizedCrop(size, interpolation=transforms.InterpolationMode.BICUBIC)
        colors = [
            transforms.RandomHorizontalFlip(p=0.5),
            transforms.RandomApply(
                [transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)], p=0.8
            ),
            transforms.RandomGrayscale(p=0.2),
            RandomBlur(blur),
            RandomSolarization(solarize),
        ]
        end = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        return transforms.Compose([crop, *([] if crop_only else colors), *end])

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.stack([view(image) for view in self.views])


def open_image(data: bytes) -> Image.Image:
    """Decode as torchvision's `ImageFolder` does."""
    return Image.open(io.BytesIO(data)).convert("RGB")
