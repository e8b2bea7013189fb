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
    """Features of `N` images at one block: `trunk` `[N, C]`, `expansion` `[N, width]`, float32 on the CPU.

    `expansion` is what the head gives before it projects; None where there is no head.
    """

    trunk: Tensor
    expansion: Tensor | None


@torch.inference_mode()
def extract_features(stages: Sequence[Stage], batches: Iterable[Tensor]) -> list[BlockFeatures]:
    """One entry per stage, in order; `batches` are images, bytes `[B, S, S, 3]`.

    The stages are left in evaluation mode.
    """
    collected: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in stages]
    for stage in stages:
        stage.eval()
    for images in batches:
        activations = images
        for stage, (trunk, expansion) in zip(stages, collected, strict=True):
            activations = stage.trunk(activations)
            pooled = activations.mean(dim=(2, 3) if activations.dim() == 4 else 1)  # a map, or tokens [B, N, D]
            trunk.append(pooled.float().cpu())
            features = stage.features(activations)
            if features is not None:
                expansion.append(features.float().cpu())
    return [
        BlockFeatures(torch.cat(trunk), torch.cat(expansion) if expansion else None) for trunk, expansion in collected
    ]
