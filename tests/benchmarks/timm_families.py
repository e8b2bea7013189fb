"""Which families of timm can be cut into four blocks: one network of each, on tensors without memory.

`python tests/benchmarks/timm_families.py` prints the table of `docs/reference/timm.md`, in minutes; names after
it are tried alone. A network is built, run, traced and cut in training and in evaluation mode, as when a run starts.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch

from pipeline.backbones.module import measure
from pipeline.backbones.network import import_network
from pipeline.config.model import TimmConfig
from pipeline.errors import ConfigError
from pipeline.validation.loading import parse_config

NETWORKS = """
beit_base_patch16_224 halonet26t gernet_s cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32 convnext_atto
crossvit_tiny_240 cspresnet50 davit_tiny deit_tiny_patch16_224 densenet121 dla34 dpn48b edgenext_xx_small
efficientformer_l1 efficientformerv2_s0 efficientnet_b0 efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224
fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny ghostnet_100 hgnet_tiny hiera_tiny_224 hrnet_w18_small
inception_next_atto inception_v3 inception_v4 lcnet_050 levit_128s mambaout_femto maxvit_rmlp_pico_rw_256
poolformer_s12 mixer_s32_224 mobilenetv3_small_100 mobilevit_xxs mobilevitv2_050 mvitv2_tiny nest_tiny
nextvit_small nf_resnet26 pit_ti_224 pvt_v2_b0 regnetx_002 repghostnet_050 repvit_m0_9 res2net50_26w_4s
resnest14d resnet18 resnetv2_18 resnext50_32x4d rexnet_100 rdnet_tiny selecsls42 seresnet18 sequencer2d_s
skresnet18 starnet_s1 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224
tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m twins_svt_small vgg11_bn visformer_tiny vit_tiny_patch16_224
vit_small_r26_s32_224 vit_relpos_small_patch16_224 vitamin_small_224 volo_d1_224 ese_vovnet19b_dw xception41
xcit_nano_12_p16_224
"""
"""One of each family, in the order of timm's files."""


@dataclass(frozen=True)
class Row:
    """What is found of one network.

    Args:
        name: of timm.
        cuts: into four blocks, and the output; or why there are none.
        millions: of parameters of each block, without heads; empty where it cannot be cut.
        size: side of the images, in pixels.
    """

    name: str
    cuts: str
    millions: str
    size: int

    def __str__(self) -> str:
        return f"| `{self.name}` | {self.size} | {self.cuts} | {self.millions} |"


def row_of(name: str) -> Row:
    """Try one network on images of its own size."""
    model = TimmConfig(backbone=f"timm/{name}")
    size = 224
    try:
        with torch.device("meta"):
            size = import_network(model, 0).default_cfg["input_size"][-1]
            config = parse_config(
                {
                    "model": {"backbone": model.backbone},
                    "data": {"image_size": size, "batch_size": 2},
                    "noise": {"kind": "none"},
                    "head": {"kind": "gsp", "projector": [16]},
                }
            )
            assert isinstance(config.model, TimmConfig)
            blocks = measure(config.model, size)
            shapes = [f"{'x'.join(map(str, block.output))}" for block in blocks]
    except ConfigError as error:
        return Row(name, str(error).partition(": ")[2].replace("|", "/"), "", size)
    units = [*config.model.cuts, config.model.output]
    cuts = ", ".join(f"`{unit}` {shape}" for unit, shape in zip(units, shapes, strict=True))
    return Row(name, cuts, _millions(config.model), size)


def _millions(model: TimmConfig) -> str:
    from pipeline.backbones.module import _build_all

    with torch.device("meta"):
        blocks = _build_all(model, 0)
    return ", ".join(f"{sum(prod(p.shape) for p in block.parameters()) / 1e6:.2f}" for block in blocks)


def rows(names: list[str]) -> Iterator[Row]:
    """One after the other."""
    for name in names:
        yield row_of(name)


def main() -> None:
    """Print the rows as they come."""
    warnings.simplefilter("ignore")
    print("| network | pixels | cut behind, and the shapes there | parameters of the blocks, millions |")
    print("|---|---|---|---|")
    for row in rows(sys.argv[1:] or NETWORKS.split()):
        print(row, flush=True)


if __name__ == "__main__":
    main()
