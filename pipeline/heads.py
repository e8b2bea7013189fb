"""The head of a block: what its loss sees of the block's output, thrown away after training.

Expansion head (CbE + GSP, released `model.py: pool_conv`): convolution to many channels, batch
norm, ReLU, global average pooling; then the projector (released `main.py: BarlowTwins.__init__`).
All blocks' projectors start from the same weights, as released, because they are seeded alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from pipeline.backbones import initialise_convolutions
from pipeline.config import Head
from pipeline.randomness import seeded_initialisation


class ExpansionHead(nn.Module):
    """Trunk activations `[B, C, H, W]` to the expansion feature `[B, width]` and the embedding `[B, D]`."""

    def __init__(self, config: Head, channels: int, seed: int, stage: int) -> None:
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
        with seeded_initialisation(seed, "projector"):
            self.projector = projector((config.width, *config.projector))

    def features(self, x: Tensor) -> Tensor:
        """The feature that the released evaluation classifies: `[B, C, H, W]` to `[B, width]`."""
        features: Tensor = self.expansion(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to the embedding `[B, D]`."""
        embedding: Tensor = self.projector(self.features(x))
        return embedding


def projector(widths: Sequence[int]) -> nn.Sequential:
    """Linear, batch norm, ReLU between the given widths; the last linear layer stands alone. No biases.

    `widths` are input, hidden..., output: `[B, widths[0]]` to `[B, widths[-1]]`.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=False))
    return nn.Sequential(*layers)
