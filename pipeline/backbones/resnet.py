"""Blocks of a torchvision ResNet, Wide ResNet or ResNeXt, under torchvision's own parameter names.

A block is a sequence of consecutive units (the stem, then residual units) and is built alone: stage 3
never allocates the other stages' weights. Every unit is initialised with its own seed, so the weights do
not depend on the cuts. At width 64 the blocks together are exactly torchvision's network of that name
without the classifier; smaller widths scale every layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from pipeline.backbones.block import Block, UnitCall
from pipeline.config.model import ResNetConfig
from pipeline.config.network_sizes import expansion_of, groups_of, unit_channels
from pipeline.randomness import seeded_initialisation


class ResNetBlock(Block):
    """Consecutive units of a ResNet; `[B, C, H, W]` in, `[B, C', H', W']` out.

    Its state dict has the names of torchvision's ResNet (`conv1.weight`, `layer2.0.bn1.bias`, ...), so the
    blocks' state dicts together are the backbone's.
    """

    def __init__(self, model: ResNetConfig, units: Sequence[str], seed: int) -> None:
        super().__init__()
        self.units = tuple(units)
        for unit in units:
            with seeded_initialisation(seed, "unit", unit):
                if unit == "stem":
                    self._add_stem(model)
                else:
                    layer, position = unit.split(".")
                    if layer not in self._modules:
                        self.add_module(layer, nn.ModuleDict())
                    group = self.get_submodule(layer)
                    assert isinstance(group, nn.ModuleDict)
                    group[position] = _residual_unit(model, unit)

    def _add_stem(self, model: ResNetConfig) -> None:
        if model.stem == "imagenet":
            self.conv1 = nn.Conv2d(3, model.width, 7, stride=2, padding=3, bias=False)
            self.maxpool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            stride = 2 if model.stem == "strided" else 1
            self.conv1 = nn.Conv2d(3, model.width, 3, stride=stride, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(model.width)
        self.relu = nn.ReLU(inplace=True)
        initialise_convolutions(self.conv1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C', H', W']`."""
        for call in self.unit_calls():
            x = call.function(x)
        return x

    def unit_calls(self) -> list[UnitCall]:
        """See `Block.unit_calls`: the stem, and each residual unit."""
        units = [self.get_submodule(name) for name in self.units if name != "stem"]
        stem = [UnitCall(self._stem, [self.bn1])] if "stem" in self.units else []
        return [*stem, *(UnitCall(unit, [unit]) for unit in units)]

    def _stem(self, images: Tensor) -> Tensor:
        output: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return output


def initialise_convolutions(module: nn.Module) -> None:
    """Kaiming normal by fan-out, as torchvision's ResNet initialises every convolution."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")


def _residual_unit(model: ResNetConfig, unit: str) -> nn.Module:
    layer, position = (int(part) for part in unit.removeprefix("layer").split("."))
    expansion = expansion_of(model)
    channels = unit_channels(model, unit)
    before = channels if position else (model.width if layer == 1 else channels // 2)
    stride = 2 if layer > 1 and position == 0 else 1
    downsample = None
    if stride != 1 or before != channels:
        downsample = nn.Sequential(resnet.conv1x1(before, channels, stride), nn.BatchNorm2d(channels))
    kind = resnet.BasicBlock if expansion == 1 else resnet.Bottleneck
    module: nn.Module = kind(before, channels // expansion, stride, downsample, *groups_of(model))
    initialise_convolutions(module)
    if model.zero_init_residual:
        last = module.bn2 if expansion == 1 else module.bn3
        assert isinstance(last, nn.BatchNorm2d)
        with torch.no_grad():
            last.weight.zero_()
    return module
