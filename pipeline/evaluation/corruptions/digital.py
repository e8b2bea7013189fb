"""Digital corruptions: brightness, contrast, saturation, stretching, pixelation, JPEG; as in `noise`."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from pipeline.data.sets.decoding import open_image
from pipeline.evaluation.corruptions.drawing import Draws, Floats
from pipeline.evaluation.corruptions.filters import Bytes, gaussian, sampled


def contrast(image: Bytes, _draws: Draws, factor: float) -> Floats:
    """Bring every channel nearer to its own mean."""
    x = image / 255
    mean = x.mean(axis=(0, 1), keepdims=True)
    return np.asarray(((x - mean) * factor + mean) * 255)


def brightness(image: Bytes, _draws: Draws, amount: float) -> Floats:
    """Add to the value in HSV, which scales all channels of a pixel alike."""
    x = image / 255
    value = x if x.ndim == 2 else x.max(axis=2, keepdims=True)
    brighter = np.clip(value + amount, 0, 1)
    return np.where(value > 0, x / np.maximum(value, 1e-12), 1.0) * brighter * 255


def saturate(image: Bytes, _draws: Draws, factor: float, amount: float) -> Floats:
    """Multiply the saturation in HSV and add to it; a gray image does not change.

    A gray pixel of a coloured image counts as red, as in the authors' library, and reddens where `amount` is not 0.
    """
    if image.ndim == 2:
        return image.astype(np.float64)
    x = image / 255
    value, least = x.max(axis=2, keepdims=True), x.min(axis=2, keepdims=True)
    spread = value - least
    depth = np.where(spread > 0, (value - x) / np.maximum(spread, 1e-12), np.array([0.0, 1.0, 1.0]))
    saturation = spread / np.maximum(value, 1e-12)
    return np.asarray(value * (1 - np.clip(saturation * factor + amount, 0, 1) * depth) * 255)


def elastic_transform(image: Bytes, draws: Draws, amount: float, sigma: float, skew: float) -> Floats:
    """Shift three points of the image, which skews it, and then move every pixel along a smooth random field.

    Args:
        image, draws: as in `noise`.
        amount: strength of the field before it is smoothed.
        sigma: of the Gaussian that smooths it.
        skew: largest shift of each point. All three as shares of the image's side.
    """
    side = image.shape[0]
    middle, third = side // 2, side // 3
    before = np.array([[middle + third] * 2, [middle + third, middle - third], [middle - third] * 2], np.float32)
    after = (before + draws.uniform((3, 2), -skew * side, skew * side)).astype(np.float32)
    matrix = cv2.getAffineTransform(before, after)
    x = (image / 255).astype(np.float32)
    skewed = np.asarray(cv2.warpAffine(x, matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101), np.float64)
    across, down = (
        gaussian(draws.uniform((side, side), -1.0, 1.0), sigma * side, 3.0, "reflect") * (amount * side)
        for _ in range(2)
    )
    places = np.arange(side)
    return sampled(skewed, places[:, np.newaxis] + down, places[np.newaxis, :] + across) * 255


def pixelate(image: Bytes, _draws: Draws, share: float) -> Floats:
    """Make the image smaller, its side times `share`, and enlarge it again, both with a box."""
    side = image.shape[0]
    small = Image.fromarray(image).resize([int(side * share)] * 2, Image.Resampling.BOX)
    return np.asarray(small.resize((side, side), Image.Resampling.BOX)).astype(np.float64)


def jpeg_compression(image: Bytes, _draws: Draws, quality: float) -> Floats:
    """Encode the image as JPEG with this quality, and decode it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(quality))
    return np.asarray(open_image(file)).astype(np.float64)
