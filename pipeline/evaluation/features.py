"""Features of every block for a whole data set, in one pass through the network.

Evaluation mode: running batch-norm statistics and no noise. Two features a block, as in the
blockwise paper: the trunk (global average of the block's output) and the expansion feature (what
the released evaluation classifies).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.stage import Stage


@dataclass(frozen=True)
class BlockFeatures:
    """Features of `N` images at one block: `trunk` `[N, C]`, `expansion` `[N, width]`, float32 on the CPU."""

    trunk: Tensor
    expansion: Tensor


@torch.inference_mode()
def extract_features(stages: Sequence[Stage], batches: Iterable[Tensor]) -> list[BlockFeatures]:
    """One entry per stage, in order; `batches` are images `[B, 3, H, W]`.

    The stages are left in evaluation mode.
    """
    collected: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in stages]
    for stage in stages:
        stage.eval()
    for images in batches:
        activations = images
        for stage, (trunk, expansion) in zip(stages, collected, strict=True):
            activations = stage.trunk(activations)
            trunk.append(activations.mean(dim=(2, 3)).float().cpu())
            expansion.append(stage.head.features(activations).float().cpu())
    return [BlockFeatures(torch.cat(trunk), torch.cat(expansion)) for trunk, expansion in collected]
