"""The blocks of a network, for every family of networks: ResNets, Vision Transformers, any torch module.

- `block.py`: what the blocks of all families have in common: they are a chain of units
- `chain.py`: the path from the image to the output of a traced network, and the values that bypass a point of it
- `chunked_expansion.py`: the expansion of a head in slices of the batch, so that its map never exists whole
- `cutting.py`: splits a traced network into a chain of graphs, one per block, or explains why it cannot be cut there
- `dividing.py`: the graph of a block as a chain of smaller ones, the units that are computed again to save memory
- `heads.py`: the head of a block: computes the embedding that the loss reads; discarded after training
- `module.py`: blocks of any torch module, cut at named points, and the shapes between them
- `network.py`: the network that the user names, uncut
- `possible_cuts.py`: all points at which a network of the user's own can be cut
- `repeated_weights.py`: weights that a network of the user's own uses more than once in one pass, found in the graph of
  a pass with no data
- `resnet.py`: blocks of a torchvision ResNet, Wide ResNet or ResNeXt, under torchvision's own parameter names
- `timm_build.py`: builds networks of timm by name, with random weights
- `timm_points.py`: where a network of timm is cut if its cuts are not given: at the points that timm names, evenly
- `tracing.py`: traces a network as a torch.fx graph, as far as some named modules need
- `vit.py`: blocks of a torchvision Vision Transformer, under torchvision's own parameter names
- `weight_names.py`: the names that other libraries give to the weights of a backbone, as one table of rules
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pipeline.backbones.block import Block
from pipeline.backbones.module import TracedBlock, build_traced_block
from pipeline.backbones.resnet import ResNetBlock, initialise_convolutions
from pipeline.backbones.vit import ViTBlock
from pipeline.config import Config
from pipeline.config.model import ResNetConfig, ViTConfig

__all__ = ["ResNetBlock", "TracedBlock", "ViTBlock", "build_block", "initialise_convolutions", "merge_backbone"]


def build_block(config: Config, index: int) -> Block:
    """Block `index`, counted from 1: `[B, C, H, W]` or tokens `[B, N, D]` in, one of the two out.

    The weights do not depend on where the network is cut, and the names in the state dict are those of the
    whole network, so `merge_backbone` joins the blocks again.

    Raises:
        ConfigError: a user's module cannot be imported, built or cut at these points.
    """
    model = config.model
    if isinstance(model, ResNetConfig):
        return ResNetBlock(model, model.blocks()[index - 1], config.seed)
    if isinstance(model, ViTConfig):
        units = model.blocks()[index - 1]
        return ViTBlock(model, units, config.data.image_size, config.seed)
    in_units = config.stage(index).memory.recompute == "units"
    return build_traced_block(model, index, config.data.image_size, config.seed, in_units)


def merge_backbone(blocks: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One state dict with the names of the uncut network from the state dicts of the blocks, in stage order."""
    return {name: tensor for index in sorted(blocks) for name, tensor in blocks[index].items()}
