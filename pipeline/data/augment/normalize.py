"""Pixels to network input, on the device of the first stage, so that bytes are sent and not floats.

The result is bit-identical to torchvision's `ToTensor` followed by `Normalize` on the CPU. Bytes have their channels
last, as crops are made; networks read channels first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Normalize:
    """`(x / 255 - mean) / std` per channel.

    Args:
        mean: three means, of pixels scaled to [0, 1].
        std: three standard deviations, of pixels scaled to [0, 1].
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = tuple(mean), tuple(std)
        self._constants: dict[tuple[torch.device, torch.dtype], tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def __call__(self, images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Normalise `images`.

        Args:
            images: uint8 `[..., H, W, 3]`; or floating point, which is returned as it is.
            dtype: of the result. float64 is computed in float64, everything else in float32.

        Returns:
            `[..., 3, H, W]`, contiguous.

        Raises:
            TypeError: another dtype than uint8 or floating point.
            ValueError: another number of channels than 3.
        """
        if images.is_floating_point():
            return images
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8 or floating point, got {images.dtype}")
        if images.dim() < 3 or images.shape[-1] != 3:
            raise ValueError(f"images must be [..., H, W, 3], got {list(images.shape)}")
        work = torch.float64 if dtype == torch.float64 else torch.float32
        scale, mean, std = self._on(images.device, work)
        # In place after the conversion: one allocation, three passes.
        floats = images.movedim(-1, -3).to(work, memory_format=torch.contiguous_format)
        return floats.div_(scale).sub_(mean).div_(std).to(dtype)

    def _on(self, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        key = (device, dtype)
        if key not in self._constants:
            # 255 is a tensor because dividing by a number multiplies by its reciprocal on CUDA, which rounds otherwise.
            scale = torch.tensor(255, dtype=dtype, device=device)
            mean, std = (torch.tensor(v, dtype=dtype, device=device).view(3, 1, 1) for v in (self.mean, self.std))
            self._constants[key] = (scale, mean, std)
        return self._constants[key]
