"""A folder for torchvision: the tensors under its own names, which its networks load."""

from __future__ import annotations

from pathlib import Path

import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from launch.exporting.formats import Format
from launch.exporting.network import ExportedNetwork, check_resnet, no_such_network
from pipeline.backbones.network import import_network
from pipeline.config.model import ModuleConfig, ResNetConfig
from pipeline.config.network_sizes import vit_sizes
from workers.run.tensor_files import read_tensors, save_tensors

FILE = "model.safetensors"
TORCHVISION = "torchvision.models:"


def _constructor(network: ExportedNetwork) -> str:
    """The call that builds torchvision's network, with random weights."""
    model = network.config.model
    if isinstance(model, ModuleConfig):
        if not model.backbone.startswith(TORCHVISION):
            raise no_such_network(network, "torchvision", "is a network of your own")
        options = ", ".join(f"{key}={value!r}" for key, value in model.options.items())
        return f"torchvision.models.{model.backbone.removeprefix(TORCHVISION)}({options})"
    if isinstance(model, ResNetConfig):
        check_resnet(network, model, "torchvision")
        return f"torchvision.models.{model.backbone}()"
    sizes = vit_sizes(model)
    layers = max(len(network.units) - 1, 1)
    return (
        f"torchvision.models.VisionTransformer({network.config.data.image_size}, {sizes.patch_size}, {layers}, "
        f"{sizes.num_heads}, {sizes.hidden_dim}, {sizes.mlp_dim})"
    )


def _node(network: ExportedNetwork) -> str:
    """The module whose result are the features."""
    model, last = network.config.model, network.units[-1]
    if isinstance(model, ModuleConfig):
        return last
    if isinstance(model, ResNetConfig):
        return "maxpool" if last == "stem" else last
    if last == "conv_proj":
        raise no_such_network(network, "torchvision", "up to conv_proj: the tokens are made of it later")
    return "encoder.ln" if network.is_whole else last


def _write(network: ExportedNetwork, folder: Path) -> str:
    lines = (
        "import torchvision\n"
        "from safetensors.torch import load_file\n"
        "from torchvision.models.feature_extraction import create_feature_extractor\n\n"
        f"network = {_constructor(network)}\n"
        f'network.load_state_dict(load_file(f"{{folder}}/{FILE}"), strict=False)  # what follows has no weights here\n'
        f'network = create_feature_extractor(network.eval(), {{"{_node(network)}": "features"}})\n'
        'features = network(images)["features"]\n'
    )
    save_tensors(folder / FILE, network.tensors(), {"format": "pt"})
    return lines


def _load(network: ExportedNetwork, folder: Path, images: Tensor) -> Tensor:
    built = _built(network)
    found = built.load_state_dict(read_tensors(folder / FILE, folder), strict=False)
    assert not found.unexpected_keys
    features: Tensor = create_feature_extractor(built.eval(), {_node(network): "features"})(images)["features"]
    return features


def _built(network: ExportedNetwork) -> nn.Module:
    model = network.config.model
    if isinstance(model, ModuleConfig):
        return import_network(model, network.config.seed)
    if isinstance(model, ResNetConfig):
        built: nn.Module = getattr(torchvision.models, model.backbone)()
        return built
    sizes = vit_sizes(model)
    layers = max(len(network.units) - 1, 1)
    size = network.config.data.image_size
    transformer: nn.Module = torchvision.models.VisionTransformer(
        size, sizes.patch_size, layers, sizes.num_heads, sizes.hidden_dim, sizes.mlp_dim
    )
    return transformer


FORMAT = Format((), _write, _load)
