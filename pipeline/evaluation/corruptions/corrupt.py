"""One corrupted image, by name and severity."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pipeline.evaluation.corruptions import blur, digital, noise, weather
from pipeline.evaluation.corruptions.drawing import Draws, Floats
from pipeline.evaluation.corruptions.filters import Bytes
from pipeline.evaluation.corruptions.parameters import PARAMETERS, edition_for

FUNCTIONS: Mapping[str, Callable[..., Floats]] = {
    function.__name__: function
    for function in (
        noise.gaussian_noise,
        noise.shot_noise,
        noise.impulse_noise,
        noise.speckle_noise,
        blur.defocus_blur,
        blur.glass_blur,
        blur.motion_blur,
        blur.zoom_blur,
        blur.gaussian_blur,
        weather.snow,
        weather.frost,
        weather.fog,
        weather.spatter,
        digital.brightness,
        digital.contrast,
        digital.saturate,
        digital.elastic_transform,
        digital.pixelate,
        digital.jpeg_compression,
    )
}


def corrupt(image: Bytes, name: str, severity: int, seed: int, index: int) -> Bytes:
    """The corrupted image, of the same shape; a pure function of the arguments.

    Args:
        image: `[S, S]` gray or `[S, S, 3]` RGB, of at least 8 pixels a side; a gray one stays gray.
        name: one of `names.STANDARD` or `names.EXTRA`.
        severity: 1 to 5; its parameters depend on the size of the image (`parameters`).
        seed: of the evaluation.
        index: of the image in its data set.

    Raises:
        KeyError: there is no such corruption.
        ValueError: the image is not square.
    """
    if image.shape[0] != image.shape[1]:
        raise ValueError(f"images must be square, got {list(image.shape)}")
    numbers = PARAMETERS[edition_for(image.shape[0])][name][severity - 1]
    levels = FUNCTIONS[name](image, Draws("corruption", seed, name, severity, index), *numbers)
    # Truncated and not rounded, as in the published files.
    return np.clip(levels, 0, 255).astype(np.uint8)
