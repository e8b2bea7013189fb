"""A folder for timm: `timm.create_model("local-dir:FOLDER", pretrained=True)`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from launch.exporting.formats import Format
from launch.exporting.network import ExportedNetwork, check_resnet, layer_of, no_such_network
from pipeline.backbones.weight_names import renamed_tensors
from pipeline.config.model import ModuleConfig, ResNetConfig
from pipeline.config.network_sizes import unit_channels, vit_sizes
from pipeline.data.augment.evaluation_view import MARGIN
from workers.run.files import write_json
from workers.run.tensor_files import save_tensors

WEIGHTS, CONFIG = "model.safetensors", "config.json"
VIT = "vit_base_patch16_224"
"""Every size of it is an argument."""


@dataclass(frozen=True, kw_only=True)
class TimmNetwork:
    """One of timm's networks.

    Args:
        architecture: its name.
        arguments: of its constructor.
        tensors: its weights.
        width: channels of its output.
        layer: of a ResNet, 1 to 4, whose output are the features; None for the last.
        cfg: where its first layer and its classifier are.
    """

    architecture: str
    arguments: dict[str, Any]
    tensors: dict[str, Tensor]
    width: int
    layer: int | None
    cfg: dict[str, str]


def timm_network(network: ExportedNetwork) -> TimmNetwork:
    """What timm calls the network; raises `UserError` if it has no such one."""
    model = network.config.model
    if isinstance(model, ModuleConfig):
        raise no_such_network(network, "timm", "is a network of your own")
    if isinstance(model, ResNetConfig):
        check_resnet(network, model, "timm")
        layer = None if network.is_whole else layer_of(network, "timm")
        width = unit_channels(model, model.units()[-1])
        # All blocks, of which `features_only` leaves the later ones out.
        tensors = network.tensors(whole=True)
        cfg = {"first_conv": "conv1", "classifier": "fc"}
        return TimmNetwork(
            architecture=model.backbone, arguments={}, tensors=tensors, width=width, layer=layer, cfg=cfg
        )
    sizes, layers = vit_sizes(model), len(network.units) - 1
    if not layers:
        raise no_such_network(network, "timm", "up to conv_proj: a transformer has a layer at least")
    arguments = {
        "img_size": network.config.data.image_size,
        "patch_size": sizes.patch_size,
        "embed_dim": sizes.hidden_dim,
        "depth": layers,
        "num_heads": sizes.num_heads,
        "mlp_ratio": sizes.mlp_dim / sizes.hidden_dim,
        "final_norm": network.is_whole,
    }
    tensors = renamed_tensors("vit", "timm", network.tensors())
    cfg = {"first_conv": "patch_embed.proj", "classifier": "head"}
    return TimmNetwork(
        architecture=VIT, arguments=arguments, tensors=tensors, width=sizes.hidden_dim, layer=None, cfg=cfg
    )


def write_timm(network: ExportedNetwork, found: TimmNetwork, folder: Path) -> None:
    """Write weights and configuration, as timm and the wrapper of transformers read them."""
    data = network.config.data
    pretrained = {
        "input_size": [3, data.image_size, data.image_size],
        "mean": list(data.mean),
        "std": list(data.std),
        "interpolation": data.eval_interpolation,
        "crop_pct": 1 / MARGIN,
        "crop_mode": "center",
        "num_classes": 0,
        "fixed_input_size": "img_size" in found.arguments,
        **found.cfg,
    }
    write_json(
        folder / CONFIG,
        {
            "architecture": found.architecture,
            "num_classes": 0,
            "num_features": found.width,
            "model_args": found.arguments,
            "pretrained_cfg": pretrained,
        },
    )
    save_tensors(folder / WEIGHTS, {name: tensor.contiguous() for name, tensor in found.tensors.items()},
                 {"format": "pt"})  # fmt: skip


def _write(network: ExportedNetwork, folder: Path) -> str:
    found = timm_network(network)
    write_timm(network, found, folder)
    if found.layer is None:
        return (
            "import timm\n\n"
            'network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()\n'
            "features = network.forward_features(images)\n"
        )
    return (
        "import timm\n\n"
        'network = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True, '
        f"out_indices=({found.layer},)).eval()\n"
        "features = network(images)[0]\n"
    )


def _load(network: ExportedNetwork, folder: Path, images: Tensor) -> Tensor:
    import timm

    found = timm_network(network)
    only: dict[str, Any] = {} if found.layer is None else {"features_only": True, "out_indices": (found.layer,)}
    loaded: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, **only).eval()
    features: Tensor = loaded.forward_features(images) if found.layer is None else loaded(images)[0]
    return features


FORMAT = Format((("timm", "timm"),), _write, _load)
