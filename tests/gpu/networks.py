"""ResNet-50 and ViT-S in four blocks, at 224 pixels and in a size that a CPU trains in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.validation.loading import parse_config
from tests.gpu.setting import Setting

NETWORKS = {"resnet50": "ResNet-50", "vit_s": "ViT-S"}
MOMENTUM, WEIGHT_DECAY, LAMBD, SCALE, NOISE = 0.9, 1e-6, 0.0051, 0.024, 0.25
"""Of the released code (train.sh), for both networks."""
LR = {"resnet50": 0.2, "vit_s": 1e-4}


def sizes(network: str, small: bool) -> dict[str, Any]:
    """Numbers that the product and the plain loop share.

    `side` of the views in pixels, `width` of the network, `projector`; of ViT-S `layers`, `heads` and `patch`, of the
    ResNet `expansion`.
    """
    if network == "resnet50":
        if small:
            return {"side": 32, "width": 8, "projector": [32, 32], "expansion": 32}
        return {"side": 224, "width": 64, "projector": [8192, 8192, 8192], "expansion": 2048}
    if small:
        return {"side": 32, "width": 48, "projector": [32, 32], "layers": 4, "heads": 3, "patch": 16}
    return {"side": 224, "width": 384, "projector": [2048, 2048, 2048], "layers": 12, "heads": 6, "patch": 16}


def values(network: str, setting: Setting) -> dict[str, Any]:
    """The configuration of a run on the images that come with the package."""
    size = sizes(network, setting.small)
    common = {
        "data": {"batch_size": setting.batch, "image_size": size["side"], "workers": setting.workers},
        "objective": {"kind": "barlow_twins", "lambd": LAMBD, "scale": SCALE},
        "noise": {"kind": "all", "std": NOISE},
        "evaluation": {"linear_probe": False},
        "precision": {"dtype": "bf16"} if setting.half else {},
    }
    optimizer = {"lr": LR[network], "scale_lr": False, "weight_decay": WEIGHT_DECAY, "warmup_epochs": 1}
    if network == "resnet50":
        return {
            **common,
            "model": {"backbone": "resnet50", "width": size["width"], "stem": "imagenet"},
            "head": {"kind": "expansion", "width": size["expansion"], "projector": size["projector"]},
            "optimizer": {"kind": "lars", "momentum": MOMENTUM, **optimizer},
            "precision": {**common["precision"], "channels_last": setting.half},
        }
    quarter = size["layers"] // 4
    cuts = [f"encoder.layers.encoder_layer_{quarter * block - 1}" for block in (1, 2, 3)]
    width = size["width"]
    model = {"hidden_dim": width, "mlp_dim": 4 * width, "num_layers": size["layers"], "num_heads": size["heads"]}
    return {
        **common,
        "model": {"backbone": "vit_b_16", "patch_size": size["patch"], "cuts": cuts, **model},
        "head": {"kind": "gsp", "projector": size["projector"]},
        "optimizer": {"kind": "adamw", **optimizer},
    }


def parsed(network: str, setting: Setting, **sections: dict[str, Any]) -> Config:
    """The same, with keys of some sections replaced."""
    given = values(network, setting)
    for name, section in sections.items():
        given[name] = {**given.get(name, {}), **section}
    return parse_config(given)


def file_of(network: str, setting: Setting, folder: Path) -> Path:
    """A configuration file in `folder`."""
    path = folder / f"{network}.yaml"
    path.write_text(json.dumps(values(network, setting)))
    return path
