"""`model`: the backbone, and where it is cut into blocks."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Tag, ValidationInfo, field_validator

from pipeline.config.base import NAME_PATTERN, PositiveInt, Section
from pipeline.config.kinds import by_key
from pipeline.config.units import RESNET_UNITS, VIT_LAYERS, check_cuts, resnet_units, split_units, vit_units

ResNetName = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
]  # fmt: skip
TIMM_PATTERN = r"^timm/\w+$"
ViTName = Literal["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"]


class ResNetConfig(Section):
    """A torchvision ResNet, Wide ResNet or ResNeXt."""

    backbone: ResNetName = "resnet50"
    """The network, by torchvision's name."""
    width: Annotated[int, Field(ge=4)] = 64
    """Channels of `layer1`; 64 is torchvision's network, less is a narrower one."""
    stem: Literal["imagenet", "cifar", "strided"] = "imagenet"
    """`imagenet`: 7x7 stride 2 and max pooling. `cifar`: 3x3 stride 1. `strided`: 3x3 stride 2."""
    zero_init_residual: bool = True
    """Start the last batch norm of every residual unit at 0, so that each unit begins as the identity."""
    cuts: tuple[str, ...] = ("layer1", "layer2", "layer3")
    """Modules after which the network is cut: `stem`, `layerN` or one residual unit, `layerN.M`. `[]` is one block."""

    @field_validator("cuts")
    @classmethod
    def _cuts_form_a_chain(cls, cuts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "backbone" in info.data:  # else the backbone is wrong, and that is the error to report
            check_cuts(info.data["backbone"], resnet_units(info.data["backbone"]), cuts)
        return cuts

    def units(self) -> list[str]:
        """Names of the pieces that are never cut, in order: the stem, then every residual unit."""
        return resnet_units(self.backbone)

    def blocks(self) -> list[list[str]]:
        """The units of each block, in order."""
        return split_units(self.units(), self.cuts)


class ViTConfig(Section):
    """A torchvision Vision Transformer; a size that is not given is that of the named network."""

    backbone: ViTName
    """The network, by torchvision's name."""
    patch_size: PositiveInt | None = None
    """Side of a patch in pixels; it must divide `data.image_size`."""
    hidden_dim: PositiveInt | None = None
    """Width of a token; a multiple of `num_heads`."""
    num_layers: Annotated[int, Field(gt=0, le=1000)] | None = None
    """Number of encoder layers."""
    num_heads: PositiveInt | None = None
    """Attention heads per layer."""
    mlp_dim: PositiveInt | None = None
    """Width of the hidden layer after the attention."""
    cuts: tuple[str, ...] = ()
    """Modules after which the network is cut: `conv_proj` or one layer, `encoder.layers.encoder_layer_N`."""

    @field_validator("cuts")
    @classmethod
    def _cuts_form_a_chain(cls, cuts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "backbone" in info.data and "num_layers" in info.data:
            layers = info.data["num_layers"] or VIT_LAYERS[info.data["backbone"]]
            check_cuts(info.data["backbone"], vit_units(layers), cuts)
        return cuts

    def units(self) -> list[str]:
        """Names of the pieces that are never cut, in order: the patch embedding, then every layer."""
        return vit_units(self.num_layers or VIT_LAYERS[self.backbone])

    def blocks(self) -> list[list[str]]:
        """The units of each block, in order."""
        return split_units(self.units(), self.cuts)


class ModuleConfig(Section):
    """Any torch module whose forward takes one tensor: traced with torch.fx and cut at named points."""

    FUNCTION: ClassVar[str] = "forward"
    """The method of the network that is traced and cut."""

    backbone: Annotated[str, Field(pattern=NAME_PATTERN)]
    """`PACKAGE.MODULE:FUNCTION`, which returns the module: `torchvision.models:convnext_tiny`."""
    options: dict[str, Any] = Field(default={})
    """Keyword arguments of the function."""
    output: str
    """Name of the module whose result is the output of the last block, such as `features`; the rest is left out."""
    cuts: tuple[str, ...] = ()
    """Names of modules, such as `features.3`, after which the network is cut."""

    channels_last: bool = False
    """Whether the maps at the cuts and at the output are `[B, H, W, C]`, as inside Swin; blocks then exchange them as
    `[B, C, H, W]`."""

    def units(self) -> list[str]:
        """The names that end the blocks, in order."""
        return [*self.cuts, self.output]

    def blocks(self) -> list[list[str]]:
        """Each block by the name that ends it."""
        return [[name] for name in self.units()]


class TimmConfig(ModuleConfig):
    """A network of timm by its name, with random weights: traced and cut as any other module."""

    FUNCTION: ClassVar[str] = "forward_features"
    """All but the pooling and the classifier, which is what branches most."""

    backbone: Annotated[str, Field(pattern=TIMM_PATTERN)]
    """`timm/NAME`, with any name of `timm.list_models()`: `timm/vit_tiny_patch16_224`."""
    options: dict[str, Any] = Field(default={})
    """Further arguments of `timm.create_model`: `img_size`, `drop_path_rate`, ..."""
    output: str = ""
    """Name of the module whose result is the output of the last block; the one that ends `forward_features` if not
    given."""
    cuts: tuple[str, ...] = ()
    """Names of modules after which the network is cut; `num_blocks` decides if not given. `[]` is one block."""
    num_blocks: PositiveInt = 4
    """Blocks to cut the network into, evenly among the points that timm's `feature_info` names, where `cuts` is not
    given."""
    channels_last: bool = False
    """As for any module; found if not given."""


def _family(backbone: str) -> str:
    if backbone.startswith("timm/"):
        return "timm"
    if backbone in VIT_LAYERS:
        return "vit"
    return "module" if re.match(NAME_PATTERN, backbone) else "resnet"


BACKBONES = (*RESNET_UNITS, *VIT_LAYERS, "timm/NAME", "PACKAGE.MODULE:FUNCTION")
ModelConfig = Annotated[
    Annotated[ResNetConfig, Tag("resnet")]
    | Annotated[ViTConfig, Tag("vit")]
    | Annotated[TimmConfig, Tag("timm")]
    | Annotated[ModuleConfig, Tag("module")],
    by_key("backbone", "resnet50", _family),
]
