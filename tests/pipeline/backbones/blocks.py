"""What tests of backbones share: the blocks of a configuration, their joint weights, and images to run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.backbones import build_block, merge_backbone
from pipeline.config import Config


def blocks_of(config: Config) -> list[nn.Module]:
    return [build_block(config, index) for index in range(1, config.num_stages + 1)]


def merged(blocks: list[nn.Module]) -> dict[str, Tensor]:
    return merge_backbone({index: block.state_dict() for index, block in enumerate(blocks, 1)})


def images(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
