"""Jitter, grayscale, blur, solarisation and noise on the device of the first stage (`data.augment_on: device`).

The data loader then only crops and flips. The rest is applied here to whole batches, with the same parameters that
the data loader's workers would draw: they are a pure function of (seed, epoch, image, view), so the indices of the
images suffice. Images with the same operation at the same position of their order are computed together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import DataConfig
from pipeline.data.augment import batch_operations as batch
from pipeline.data.augment.batch_operations import Job
from pipeline.data.augment.keyed_draws import Purpose, keyed_normals
from pipeline.data.augment.parameters import draw_parameters
from pipeline.data.augment.pil_operations import BRIGHTNESS, CONTRAST, HUE, SATURATION, WHITE, ViewParameters
from pipeline.data.augment.resolution import view_sizes
from pipeline.data.augment.view_kinds import view_kinds
from pipeline.data.packing import is_packed, pack, unpack
from pipeline.data.to_device import sent_to

CHUNK_BYTES = 32 * 2**20
"""Bytes of float images that are processed at a time; temporary memory is a few times as much."""
ANY_SIZE = (1, 1)
"""Stands for the image's size when parameters are drawn: the crop is made already, and no other draw depends on it."""


def photometrics_on_device(data: DataConfig) -> bool:
    """Whether everything after crop and flip runs on the device of the first stage.

    `auto` never does: on a CPU it would slow down the stage that all others wait for, and no gain on a GPU has been
    measured.
    """
    return data.augment_on == "device"


class Photometrics:
    """Applies all but crop and flip to views that the data loader has cropped and flipped.

    Args:
        data: the views and their augmentation.
        num_views: of an image, the negative patch counted.
        seed: of the run.
    """

    def __init__(self, data: DataConfig, num_views: int, seed: int) -> None:
        self._data, self._kinds, self._seed = data, view_kinds(data, num_views), seed

    def __call__(self, views: Tensor, epoch: int, samples: NDArray[np.int64]) -> Tensor:
        """Apply everything but crop and flip.

        Args:
            views: uint8 `[V, B, S, S, 3]`, or packed `[1, B, total]` (`pipeline.data.packing`) of the sizes that views
                have in this epoch; on any device; not modified.
            epoch: counted from 0.
            samples: indices of the images in the data set, `[B]`.

        Returns:
            uint8 of the same shape on the same device. Each view depends only on its own pixels and key.

        Raises:
            ValueError: wrong shape or dtype, or not one sample index per image.
        """
        shape, numbers, count = list(views.shape), samples.tolist(), len(self._kinds)
        fits = len(shape) == 3 or (len(shape) == 5 and shape[0] == count and shape[2:] == [shape[2], shape[2], 3])
        if views.dtype != torch.uint8 or not fits:
            raise ValueError(f"views must be uint8 [{count}, B, S, S, 3] or packed, got {views.dtype} {shape}")
        if len(numbers) != shape[1]:
            raise ValueError(f"{len(numbers)} numbers for {shape[1]} images")
        sizes = view_sizes(self._data, epoch, count)
        parts = unpack(views, [(size, size, 3) for size in sizes])
        finished = [self._of_all(pixels, epoch, view, numbers) for view, pixels in enumerate(parts)]
        return pack(finished, is_packed(views))

    def _of_all(self, pixels: Tensor, epoch: int, view: int, numbers: list[int]) -> Tensor:
        """One view of all images, `[B, S, S, 3]`, chunk by chunk."""
        finished = torch.empty_like(pixels)
        count = max(1, CHUNK_BYTES // (4 * pixels[:1].numel() or 1))
        for start in range(0, len(numbers), count):
            rows = slice(start, start + count)
            finished[rows] = self._of_some(pixels[rows], epoch, view, numbers[rows])
        return finished

    def _of_some(self, pixels: Tensor, epoch: int, view: int, numbers: list[int]) -> Tensor:
        """One view of some images, `[n, S, S, 3]`; the result has whole levels as float32."""
        augment = self._kinds[view].augment
        drawn = [draw_parameters(augment, ANY_SIZE, self._seed, epoch, number, view) for number in numbers]
        levels = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        noise = self._noise(levels, augment.noise_std[min(view, 1)], epoch, view, numbers)
        batch.run(_colors(drawn), levels)
        batch.blur(levels, [parameters.blur for parameters in drawn])
        batch.run([(batch.solarize, [row for row, p in enumerate(drawn) if p.solarize], [])], levels)
        if noise is not None:
            levels.add_(noise).round_().clamp_(0, WHITE)
        return levels.permute(0, 2, 3, 1)

    def _noise(self, levels: Tensor, std: float, epoch: int, view: int, numbers: Sequence[int]) -> Tensor | None:
        """Noise in levels, drawn on the CPU as the workers do.

        A grayscale image gets the same noise in all channels; it is detected by equal channels everywhere in the crop.
        """
        if std == 0.0:
            return None
        gray = (levels == levels[:, :1]).flatten(1).all(1).tolist()
        noise = torch.empty_like(levels, device="cpu")
        for row, number in enumerate(numbers):
            shape = noise.shape[2:] if gray[row] else noise.shape[1:]
            normals = keyed_normals(self._seed, Purpose.PIXEL_NOISE, (view, number, epoch), math.prod(shape))
            noise[row] = torch.from_numpy(WHITE * std * normals.reshape(shape))
        return sent_to(noise, levels.device)


def _colors(drawn: Sequence[ViewParameters]) -> list[Job]:
    """The jobs of jitter, for each position of the order and each operation, then of grayscale."""
    kinds = (
        (BRIGHTNESS, batch.brightness),
        (CONTRAST, batch.contrast),
        (SATURATION, batch.saturation),
        (HUE, batch.hue),
    )
    jobs: list[Job] = []
    for place in range(4):
        for kind, operation in kinds:
            at_place = [
                (i, _amount(p, kind)) for i, p in enumerate(drawn) if p.jitter and p.jitter.order[place] == kind
            ]
            changed = [(i, amount) for i, amount in at_place if amount is not None]
            jobs.append((operation, [i for i, _ in changed], [amount for _, amount in changed]))
    jobs.append((batch.gray, [i for i, p in enumerate(drawn) if p.gray], []))
    return jobs


def _amount(parameters: ViewParameters, kind: int) -> float | None:
    """The factor of one jitter operation, or the hue turn in 256 levels; None if it changes nothing."""
    jitter = parameters.jitter
    assert jitter is not None
    if kind == HUE:  # a hue that is switched off must not go through HSV, which rounds
        return float(int(jitter.hue * WHITE) % 256) if jitter.hue != 0.0 else None
    factor = (jitter.brightness, jitter.contrast, jitter.saturation)[kind]
    return factor if factor != 1.0 else None
