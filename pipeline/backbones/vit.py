"""Blocks of a torchvision Vision Transformer, under torchvision's own parameter names.

The first unit turns an image into tokens: patch embedding, class token, position embedding. The other
units are torchvision's encoder layers; `encoder.ln` ends the last block. Together they are torchvision's
`VisionTransformer` up to and including `encoder.ln`, with the same initialisation, seeded per unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock

from pipeline.backbones.block import Block, UnitCall
from pipeline.config.model import ViTConfig
from pipeline.config.network_sizes import ViTSizes, vit_sizes
from pipeline.randomness import seeded_initialisation

EPSILON = 1e-6
"""Of the layer norms, as in torchvision."""


class ViTBlock(Block):
    """Consecutive units of a Vision Transformer: images `[B, 3, S, S]` or tokens `[B, N, D]` in, tokens out.

    N is the number of patches plus one, for the class token, which comes first. The state dict has the names
    of torchvision's VisionTransformer (`class_token`, `encoder.layers.encoder_layer_0.ln_1.weight`, ...).
    """

    def __init__(self, model: ViTConfig, units: Sequence[str], image_size: int, seed: int) -> None:
        super().__init__()
        sizes = vit_sizes(model)
        self.units = tuple(units)
        self.encoder = nn.Module()
        for unit in units:
            with seeded_initialisation(seed, "unit", unit):
                if unit == "conv_proj":
                    self._add_embedding(sizes, image_size)
                else:
                    self._add_layer(sizes, unit)
        if units[-1] == model.units()[-1]:
            self.encoder.ln = nn.LayerNorm(sizes.hidden_dim, eps=EPSILON)

    def _add_embedding(self, sizes: ViTSizes, image_size: int) -> None:
        width, patch = sizes.hidden_dim, sizes.patch_size
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.conv_proj = nn.Conv2d(3, width, patch, stride=patch)
        nn.init.trunc_normal_(self.conv_proj.weight, std=sqrt(1 / (3 * patch * patch)))
        assert self.conv_proj.bias is not None
        nn.init.zeros_(self.conv_proj.bias)
        num_tokens = (image_size // patch) ** 2 + 1
        self.encoder.pos_embedding = nn.Parameter(torch.empty(1, num_tokens, width).normal_(std=0.02))

    def _add_layer(self, sizes: ViTSizes, unit: str) -> None:
        if "layers" not in self.encoder._modules:
            self.encoder.layers = nn.ModuleDict()
        layers = self.encoder.get_submodule("layers")
        assert isinstance(layers, nn.ModuleDict)
        layers[unit.rpartition(".")[2]] = EncoderBlock(
            sizes.num_heads, sizes.hidden_dim, sizes.mlp_dim, dropout=0.0, attention_dropout=0.0
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, 3, S, S]` in the first block, tokens `[B, N, D]` in the others, to tokens `[B, N, D]`."""
        for call in self.unit_calls():
            x = call.function(x)
        return x

    def unit_calls(self) -> list[UnitCall]:
        """See `Block.unit_calls`: the embedding of the patches, each encoder layer, and the last norm."""
        names = [name for name in self.units if name != "conv_proj"]
        layers = [self.get_submodule(name) for name in names]
        layers += [self.encoder.get_submodule("ln")] if "ln" in self.encoder._modules else []
        embedding = [UnitCall(self._embed, [])] if "conv_proj" in self.units else []
        return [*embedding, *(UnitCall(layer, []) for layer in layers)]

    def _embed(self, images: Tensor) -> Tensor:
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), patches], dim=1)
        return tokens + self.encoder.get_parameter("pos_embedding")
