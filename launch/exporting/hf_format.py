"""A folder for transformers: its own ResNet or ViT where the network is one, else its wrapper around timm's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from torch import Tensor

from launch.exporting.formats import Format
from launch.exporting.network import ExportedNetwork, check_resnet, no_such_network
from launch.exporting.timm_format import timm_network, write_timm
from pipeline.backbones.vit import EPSILON
from pipeline.backbones.weight_names import recognise, renamed_tensors
from pipeline.config.model import ResNetConfig, ViTConfig
from pipeline.config.network_sizes import expansion_of, groups_of, unit_channels, vit_sizes
from pipeline.data.augment.evaluation_view import MARGIN, RESAMPLING
from workers.run.files import write_json


def _own_model(network: ExportedNetwork) -> Any | None:
    """transformers' own network with the weights; None where it has none and timm may."""
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = network.config.model
    if isinstance(model, ResNetConfig) and groups_of(model) == (1, 64):
        check_resnet(network, model, "transformers", widths=True)
        units = Counter(unit.split(".")[0] for unit in network.units if unit != "stem")
        if not units:
            raise no_such_network(network, "transformers", "up to its stem: it has a layer at least")
        settings: Any = transformers.ResNetConfig(
            embedding_size=model.width,
            hidden_sizes=[unit_channels(model, f"{layer}.0") for layer in units],
            depths=list(units.values()),
            layer_type="basic" if expansion_of(model) == 1 else "bottleneck",
            hidden_act="relu",
        )
        built: Any = transformers.ResNetModel(settings)
        tensors = renamed_tensors("resnet", "hf", network.tensors())
    elif isinstance(model, ViTConfig) and network.is_whole:
        sizes = vit_sizes(model)
        settings = transformers.ViTConfig(
            hidden_size=sizes.hidden_dim,
            num_hidden_layers=sizes.num_layers,
            num_attention_heads=sizes.num_heads,
            intermediate_size=sizes.mlp_dim,
            image_size=network.config.data.image_size,
            patch_size=sizes.patch_size,
            layer_norm_eps=EPSILON,
            hidden_act="gelu",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        built = transformers.ViTModel(settings, add_pooling_layer=False)
        names = recognise("vit", built.state_dict()).format  # its versions differ
        tensors = renamed_tensors("vit", names, network.tensors())
    else:
        return None
    built.load_state_dict(tensors)
    return built.eval()


def _arguments(network: ExportedNetwork) -> dict[str, Any]:
    """How it is loaded: a ViT without the pooler, which was not trained."""
    own_vit = isinstance(network.config.model, ViTConfig) and network.is_whole
    return {"local_files_only": True, **({"add_pooling_layer": False} if own_vit else {})}


def _write(network: ExportedNetwork, folder: Path) -> str:
    own = _own_model(network)
    if own is not None:
        own.save_pretrained(folder)
    else:
        found = timm_network(network)
        if found.layer is not None:
            raise no_such_network(network, "transformers", f"up to block {network.block}: it has the whole one only")
        write_timm(network, found, folder)
    write_json(folder / "preprocessor_config.json", _preprocessor(network))
    arguments = ", ".join(f"{key}={value}" for key, value in _arguments(network).items())
    return (
        "from transformers import AutoModel\n\n"
        f"network = AutoModel.from_pretrained(folder, {arguments}).eval()\n"
        "features = network(images).last_hidden_state\n"
    )


def _preprocessor(network: ExportedNetwork) -> dict[str, Any]:
    """How `AutoImageProcessor` prepares images: the short side resized, then the centre cut out."""
    data = network.config.data
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": round(data.image_size * MARGIN)},
        "resample": int(RESAMPLING[data.eval_interpolation]),
        "do_center_crop": True,
        "crop_size": {"height": data.image_size, "width": data.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(data.mean),
        "image_std": list(data.std),
    }


def _load(network: ExportedNetwork, folder: Path, images: Tensor) -> Tensor:
    from transformers import AutoModel

    loaded = AutoModel.from_pretrained(folder, **_arguments(network)).eval()
    features: Tensor = loaded(images).last_hidden_state
    return features


FORMAT = Format((("transformers", "hf"), ("timm", "hf")), _write, _load)
