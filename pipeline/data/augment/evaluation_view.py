"""The view for evaluation: deterministic, resized and cropped at the centre."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

MARGIN = 256 / 224
"""The released evaluation resizes to 256 pixels before it crops 224."""
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def evaluation_view(
    image: Image.Image,
    size: int,
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    backend: Literal["fast", "pil"] = "pil",
) -> NDArray[np.uint8]:
    """The view for evaluation.

    An image that already has this size is not resized. Any other is resized so that its short side is
    256/224 of `size`, and cropped at the centre: bilinearly, as the released `evaluate.py` does, or
    bicubically, as the BYOL reproduction's `dataset.py` does.

    Args:
        image: mode L or RGB.
        size: side of the view, in pixels.
        interpolation: how to resize.
        backend: PIL, bit-identical to the released code, or PyTorch's kernel for bytes, within a level of it.

    Returns:
        uint8 `[size, size, 3]`, contiguous.
    """
    pixels = np.array(image) if image.size == (size, size) else _centre(image, size, interpolation, backend)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    return np.ascontiguousarray(np.broadcast_to(pixels, (size, size, 3)))


def _centre(
    image: Image.Image, size: int, interpolation: Literal["bilinear", "bicubic"], backend: str
) -> NDArray[np.uint8]:
    """`[size, size]` or `[size, size, 3]`."""
    short = round(size * MARGIN)
    width, height = image.size
    long = int(short * max(width, height) / min(width, height))
    width, height = (short, long) if width <= height else (long, short)
    left, top = round((width - size) / 2), round((height - size) / 2)
    if backend == "pil":
        resized = image.resize((width, height), RESAMPLING[interpolation])
        return np.asarray(resized.crop((left, top, left + size, top + size)))
    channels = torch.from_numpy(np.array(image).reshape(image.height, image.width, -1)).permute(2, 0, 1).unsqueeze(0)
    enlarged = F.interpolate(channels, size=(height, width), mode=interpolation, antialias=True)
    return enlarged[0].permute(1, 2, 0)[top : top + size, left : left + size].squeeze(2).numpy()
