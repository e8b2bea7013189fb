"""The colour operations and the blur for whole batches, on any device, with an amount per image.

The results are bit-identical to those of `pil_operations.py`, except that one value in some ten thousand is one level
away after a hue turn or a blur with a kernel. No image depends on the others of its batch. All functions take and
return whole levels as float32, `[n, 3, H, W]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.augment.blurring import extended_box
from pipeline.data.augment.pil_operations import LUMA, WHITE, Blur, kernel_side
from pipeline.data.to_device import sent_to

PIL_LUMA = tuple(float(round(weight * 2**16)) for weight in LUMA)
"""PIL's weights, in whole units of 1 / 65536."""

Operation = Callable[[Tensor, Tensor], Tensor]
"""Takes levels `[n, 3, H, W]` and amounts `[n, 1, 1, 1]`; returns levels of the same shape."""
Job = tuple[Operation, list[int], list[float]]
"""An operation, the rows of a batch that it applies to, and their amounts (empty if it takes none)."""


def run(jobs: Sequence[Job], levels: Tensor) -> None:
    """Apply `jobs` to `levels`, in place and in order; all rows and amounts are copied to the device at once."""
    jobs = [job for job in jobs if job[1]]
    if not jobs:
        return
    rows = sent_to(torch.tensor([row for _, chosen, _ in jobs for row in chosen]), levels.device)
    factors = [a for _, chosen, given in jobs for a in given or [0.0] * len(chosen)]
    amounts = sent_to(torch.tensor(factors), levels.device)
    start = 0
    for operation, chosen, _ in jobs:
        part = slice(start, start + len(chosen))
        levels[rows[part]] = operation(levels[rows[part]], amounts[part].view(-1, 1, 1, 1))
        start += len(chosen)


def brightness(levels: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return _blend(0.0, levels, factor)


def contrast(levels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean gray level of the image, rounded."""
    gray = _luma(levels)
    pixels = gray[0].numel()
    total = gray.to(torch.int64).sum(dim=(1, 2, 3), keepdim=True)
    mean = torch.div(2 * total + pixels, 2 * pixels, rounding_mode="floor")
    return _blend(mean.to(levels.dtype), levels, factor)


def saturation(levels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the gray image."""
    return _blend(_luma(levels), levels, factor)


def hue(levels: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by `turn` of 256 levels: to PIL's HSV, add modulo 256, and back."""
    angle, purity, value = _hsv(levels)
    purity, sector = purity / WHITE, ((angle + turn[:, 0]) % 256) * (6 / WHITE)
    channels = []
    for offset in (5, 3, 1):  # of red, green and blue on the circle of six sectors
        place = (sector + offset) % 6
        share = torch.minimum(place, 4 - place).clamp_(0, 1)
        channels.append((value * (1 - purity * share)).add_(0.5).floor_())
    return torch.stack(channels, 1)


def gray(levels: Tensor, _: Tensor) -> Tensor:
    """The gray level in all channels."""
    return _luma(levels).expand_as(levels)


def solarize(levels: Tensor, _: Tensor) -> Tensor:
    """Invert the levels from 128 on."""
    return torch.minimum(levels, WHITE - levels)


def blur(levels: Tensor, blurs: Sequence[Blur | None]) -> None:
    """Blur in place, along rows and then columns; `blurs` has one entry per image, None for no blur."""
    for boxes in (True, False):
        chosen = [(i, b) for i, b in enumerate(blurs) if b is not None and (b.kernel is None) == boxes]
        if not chosen:
            continue
        kernels = [
            _normalized(extended_box(b.sigma)) if b.kernel is None else _gaussian(b, levels.shape[-1])
            for _, b in chosen
        ]
        reach = max(len(kernel) for kernel in kernels) // 2
        centred = np.stack([np.pad(kernel, reach - len(kernel) // 2) for kernel in kernels])
        weights = sent_to(torch.from_numpy(centred.astype(np.float32)), levels.device)
        rows = sent_to(torch.tensor([i for i, _ in chosen]), levels.device)
        blurred = levels[rows]
        for axis in (3, 2):
            if boxes:  # as in PIL: rounded to whole levels after each pass, and the border extended anew
                for _ in range(3):
                    blurred = _convolve(blurred, weights, axis, "replicate").add_(0.5).floor_()
            else:
                blurred = _convolve(blurred, weights, axis, "reflect")
        levels[rows] = blurred.round_().clamp_(0, WHITE)


def _blend(base: Tensor | float, levels: Tensor, factor: Tensor) -> Tensor:
    """PIL's `Image.blend`, which truncates to whole levels."""
    return ((levels - base) * factor + base).clamp_(0, WHITE).floor_()


def _luma(levels: Tensor) -> Tensor:
    """Gray levels `[n, 1, H, W]` as PIL converts to mode L; all sums are whole numbers that a float32 holds."""
    red, green, blue = (levels[:, c : c + 1] * weight for c, weight in enumerate(PIL_LUMA))
    return red.add_(green).add_(blue).add_(2**15).mul_(2.0**-16).floor_()


def _hsv(levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value, `[n, H, W]` in 256 levels; in single and double precision as in PIL."""
    value = levels.amax(1)
    span = value - levels.amin(1)
    divisor = span.clamp(min=1)
    red, green, blue = ((value - level).div_(divisor).double() for level in levels.unbind(1))  # 0 for the brightest
    sector = torch.where(red == 0, blue - green, torch.where(green == 0, 2 + red - blue, 4 + green - red))
    angle = sector.float().double().div_(6).add_(1).remainder_(1).float().double().mul_(WHITE).floor_().float()
    return angle, (span / value.clamp(min=1)).mul_(WHITE).floor_(), value


def _gaussian(blur: Blur, size: int) -> NDArray[np.float64]:
    assert blur.kernel is not None
    reach = kernel_side(blur.kernel, size) // 2
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * blur.sigma**2))
    return _normalized(weights)


def _normalized(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(weights / weights.sum())


def _convolve(levels: Tensor, weights: Tensor, axis: int, border: str) -> Tensor:
    """Convolve along one axis, with the symmetric kernel `weights[i]` for image i; sums pairs in a fixed order."""
    reach, size = weights.shape[1] // 2, levels.shape[axis]
    padded = F.pad(levels, (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach), mode=border)
    taps = weights[:, :, None, None, None]
    result = levels * taps[:, reach]
    for distance in range(1, reach + 1):
        pair = padded.narrow(axis, reach - distance, size) + padded.narrow(axis, reach + distance, size)
        result.addcmul_(pair, taps[:, reach + distance])
    return result
