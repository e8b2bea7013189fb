"""Makes the views of an image: draws the parameters of each and applies them.

A view is a pure function of (seed, epoch, image, view) and the pixels of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.config import DataConfig
from pipeline.data.augment.fast_operations import FastOperations
from pipeline.data.augment.keyed_draws import Purpose, keyed_normals
from pipeline.data.augment.parameters import draw_parameters
from pipeline.data.augment.pil_operations import PilOperations, ViewParameters
from pipeline.data.augment.view_kinds import view_kinds

PARTS = ("crop", "jitter", "blur", "other")
"""Parts into which the time of a view is split: crop and resize; jitter and grayscale; blur; all else."""


class ViewMaker:
    """Makes the views of images; keeps its temporary memory, so use one object per thread.

    Args:
        data: augmentation settings and backend.
        num_views: of the run (`Config.num_views`); the negative patch, where there is one, is the last.
        seed: of the run.
        photometrics: False only crops and flips the views; the first stage applies the rest.
        clock: returns seconds; by default no time is measured.

    Attributes:
        seconds: spent so far, by part (`PARTS`).
    """

    def __init__(
        self,
        data: DataConfig,
        num_views: int,
        seed: int,
        *,
        photometrics: bool = True,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._kinds, self._seed, self._photometrics = view_kinds(data, num_views), seed, photometrics
        self._operations = FastOperations() if data.augment_backend == "fast" else PilOperations()
        self._clock = clock
        self._since = 0.0
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def make(self, pixels: NDArray[np.uint8], epoch: int, index: int, out: Sequence[NDArray[np.uint8]]) -> None:
        """Make all views of one image.

        Args:
            pixels: contiguous uint8, `[H, W]` of a gray image or `[H, W, 3]` (RGB).
            epoch: counted from 0.
            index: of the image in the data set.
            out: for each view uint8 `[S, S, 3]`, which is written to; its shape says how large the view is.

        Raises:
            ValueError: `out` does not have one array per view.
        """
        self._since = self._clock()
        height, width = pixels.shape[:2]
        for view, (kind, target) in enumerate(zip(self._kinds, out, strict=True)):
            drawn = draw_parameters(kind.augment, (height, width), self._seed, epoch, index, view)
            if not self._photometrics:
                drawn = ViewParameters(drawn.top, drawn.left, drawn.height, drawn.width, drawn.flip)
            noise = None
            if drawn.noise_std > 0.0:
                noise = drawn.noise_std * self._normals(len(target), pixels.ndim, (view, index, epoch))
            self._lap("other")
            self._operations(pixels, drawn, noise, target, self._lap)

    def _normals(self, size: int, dimensions: int, counter: tuple[int, int, int]) -> NDArray[np.float64]:
        """Noise `[S, S, 3]`, independent per channel; `[S, S, 1]` for a gray image, so that it stays gray.

        A view of a colour image that grayscale was applied to still gets three channels of noise.
        """
        shape = (1 if dimensions == 2 else 3, size, size)
        return (
            keyed_normals(self._seed, Purpose.PIXEL_NOISE, counter, math.prod(shape)).reshape(shape).transpose(1, 2, 0)
        )

    def _lap(self, part: str) -> None:
        now = self._clock()
        self.seconds[part] += now - self._since
        self._since = now
