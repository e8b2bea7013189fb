"""The head of a block: what its loss sees of the block's output, thrown away after training.

A head makes one feature vector of the block's activations and projects it. What makes the feature is the
head's kind: the expansion of the released `model.py: pool_conv` (CbE + GSP), or pooling alone, global or
local. The projector is that of the released `main.py: BarlowTwins.__init__`, where all blocks' projectors
start from the same weights; so they do here unless told otherwise, because they are seeded alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.backbones import initialise_convolutions
from pipeline.backbones.chunked_expansion import expand_in_chunks
from pipeline.config import heads as settings
from pipeline.randomness import seeded_initialisation


class Head(nn.Module, ABC):
    """Activations of a block to its feature `[B, F]` and its embedding `[B, D]`.

    Activations are maps `[B, C, H, W]` or, of a Vision Transformer, tokens `[B, N, C]`.
    """

    projector: nn.Module
    embedding_width: int
    """D."""
    chunk: int | None = None
    """Images per slice in which features are computed while training; None for all at once."""
    keeps_maps: bool = False
    """Whether the backward pass of `features` needs more than its input, if that is not computed again."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """What the evaluation of a block classifies: `[B, C, H, W]` or `[B, N, C]` to `[B, F]`."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` or `[B, N, C]` to the embedding `[B, D]`."""
        embedding: Tensor = self.projector(self.features(x))
        return embedding

    def _add_projector(self, config: settings.ProjectedConfig, feature_width: int, seed: int, stage: int) -> None:
        """Comes after the kind's own weights, so that parameters are listed in the order of the forward pass."""
        key = (seed, "projector") if config.initialisation == "shared" else (seed, "projector", stage)
        widths = (feature_width, *config.projector)
        self.embedding_width = widths[-1]
        with seeded_initialisation(*key):
            self.projector = mlp(widths, config.projector_bias) if config.projector else nn.Identity()
        if config.projector_norm:
            layers = self.projector if isinstance(self.projector, nn.Sequential) else ()
            self.projector = nn.Sequential(*layers, nn.BatchNorm1d(self.embedding_width, affine=False))


class ExpansionHead(Head):
    """CbE + GSP: convolution to `width` channels, batch norm, ReLU, average over all pixels; F = `width`."""

    def __init__(self, config: settings.ExpansionConfig, channels: int, seed: int, stage: int) -> None:
        super().__init__()
        with seeded_initialisation(seed, "expansion", stage):
            self.expansion = nn.Sequential(
                nn.Conv2d(channels, config.width, config.filter, padding=config.filter // 2, bias=False),
                nn.BatchNorm2d(config.width),
                nn.ReLU(inplace=True),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )
            initialise_convolutions(self.expansion)
        self.chunk, self.keeps_maps = config.chunk, config.chunk is None
        self._add_projector(config, config.width, seed, stage)

    def features(self, x: Tensor) -> Tensor:
        """The feature that the released evaluation classifies: `[B, C, H, W]` or `[B, N, C]` to `[B, width]`."""
        if self.chunk is not None and self.training:
            convolution, norm = self.expansion[0], self.expansion[1]
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, _BatchNorm)
            return expand_in_chunks(as_map(x), convolution, norm, self.chunk)
        features: Tensor = self.expansion(as_map(x))
        return features


class GlobalPoolingHead(Head):
    """GSP: the average over all pixels, or over all tokens; F = C."""

    def __init__(self, config: settings.GlobalPoolingConfig, channels: int, seed: int, stage: int) -> None:
        super().__init__()
        self._add_projector(config, channels, seed, stage)

    def features(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` or `[B, N, C]` to `[B, C]`."""
        return as_map(x).mean(dim=(2, 3))


class LocalPoolingHead(Head):
    """LSP: the averages over the cells of a `grid` x `grid` partition, channel by channel; F = C * grid^2."""

    def __init__(self, config: settings.LocalPoolingConfig, channels: int, seed: int, stage: int) -> None:
        super().__init__()
        self.grid = config.grid
        self._add_projector(config, channels * config.grid**2, seed, stage)

    def features(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]`, H and W >= grid, to `[B, C * grid^2]`."""
        # torch's adaptive pooling gives the same numbers, but its backward on CUDA differs from run to run.
        return _cell_means(_cell_means(as_map(x), self.grid, dim=2), self.grid, dim=3).flatten(1)


def _cell_means(x: Tensor, cells: int, dim: int) -> Tensor:
    """Averages along `dim`, whose size becomes `cells`; where it does not divide, neighbours share one."""
    size = x.shape[dim]
    bounds = [(cell * size // cells, -(-(cell + 1) * size // cells)) for cell in range(cells)]
    return torch.stack([x.narrow(dim, start, end - start).mean(dim) for start, end in bounds], dim)


def as_map(x: Tensor) -> Tensor:
    """Tokens `[B, N, C]` as the map `[B, C, N, 1]`; a map `[B, C, H, W]` as it is."""
    return x.transpose(1, 2).unsqueeze(-1) if x.dim() == 3 else x


def mlp(widths: Sequence[int], bias: bool = False) -> nn.Sequential:
    """Linear, batch norm, ReLU between the given widths; the last linear layer stands alone.

    `widths` are input, hidden..., output: `[B, widths[0]]` to `[B, widths[-1]]`. Only the last layer can have a
    `bias`: the batch norm after the others would take it out again.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=bias))
    return nn.Sequential(*layers)


HEADS: dict[str, Callable[[Any, int, int, int], Head]] = {
    "expansion": ExpansionHead,
    "gsp": GlobalPoolingHead,
    "lsp": LocalPoolingHead,
}


def build_head(config: settings.HeadConfig, channels: int, seed: int, stage: int) -> Head:
    """The head that `head.kind` names.

    Args:
        config: the stage's section `head`.
        channels: C of the block's output.
        seed, stage: key the initialisation.
    """
    return HEADS[config.kind](config, channels, seed, stage)
