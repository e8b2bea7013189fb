"""The embeddings of images at any places of a network, in one pass through it.

Features are computed in evaluation mode: running batch-norm statistics and no noise. `pipeline.config.places` defines
the places: the trunk and the expansion feature are those of the blockwise paper, whose released evaluation classifies
the latter; the projector's output is the input of the loss.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from pipeline.config.places import Feature, Place
from pipeline.stage.stage import Stage


def places_of(stages: Sequence[Stage], features: Iterable[Feature], blocks: Collection[int] = ()) -> tuple[Place, ...]:
    """The places of a network, block by block.

    Args:
        stages: the network, from its first block on.
        features: of each block. A block without a head has only a trunk; end to end, only the last has one.
        blocks: counted from 1; all if empty.
    """
    wanted = tuple(features)
    return tuple(
        Place(stage.index, feature)
        for stage in stages
        for feature in wanted
        if (not blocks or stage.index in blocks) and (feature == "trunk" or stage.head is not None)
    )


@torch.no_grad()  # not inference mode, whose tensors cannot be used in training
def embed(stages: Sequence[Stage], images: Tensor, places: Collection[Place]) -> dict[Place, Tensor]:
    """The features of one batch at every place; runs the network up to the last of them.

    Args:
        stages: the network, in evaluation mode.
        images: bytes `[B, S, S, 3]`, on the device of the stages.
        places: of `places_of`.

    Returns:
        float32 `[B, D]` each, on the device of the stages.
    """
    embeddings: dict[Place, Tensor] = {}
    last = max((place.block for place in places), default=0)
    activations = images
    for stage in stages[:last]:
        activations = stage.trunk(activations)
        wanted = {place.feature: place for place in places if place.block == stage.index}
        if trunk := wanted.get("trunk"):
            # A map [B, C, H, W], or tokens [B, N, D].
            embeddings[trunk] = activations.mean(dim=(2, 3) if activations.dim() == 4 else 1).float()
        if wanted.keys() - {"trunk"}:
            embeddings |= _of_the_head(stage, activations, wanted)
    return embeddings


def _of_the_head(stage: Stage, activations: Tensor, wanted: dict[Feature, Place]) -> dict[Place, Tensor]:
    features = stage.features(activations)
    assert features is not None, f"block {stage.index} has no head"
    assert stage.head is not None
    embeddings = {}
    if expansion := wanted.get("expansion"):
        embeddings[expansion] = features.float()
    if projector := wanted.get("projector"):
        with stage.compute.autocast():
            embeddings[projector] = stage.head.projector(features).float()
    return embeddings
