"""The network that the user names, uncut.

Every stage builds the whole network with the same seed and keeps its own part, so the weights do not depend on the
cuts.
"""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from pipeline.backbones.timm_build import build_timm
from pipeline.config.model import ModuleConfig, TimmConfig
from pipeline.errors import ConfigError
from pipeline.plugins import Plugin
from pipeline.randomness import seeded_initialisation


def import_network(model: ModuleConfig, seed: int) -> nn.Module:
    """The network that `model.backbone` names, uncut and on the CPU, with the weights of `seed`.

    Random numbers from torch are seeded; a function that draws from another source is not repeatable.

    Raises:
        ConfigError: the function cannot be imported, raises, or does not return a module with initialised weights.
    """
    with seeded_initialisation(seed, "network"):
        if isinstance(model, TimmConfig):
            return build_timm(model)
        network = Plugin("model.backbone", model.backbone, "model.options", model.options).call()
    if not isinstance(network, nn.Module):
        raise ConfigError(
            "model.backbone",
            f"'{model.backbone}' returned an object of type {type(network).__name__}, not a torch.nn.Module",
            "Name a function that builds and returns the network",
        )
    lazy = [name for name, parameter in network.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ConfigError(
            "model.backbone",
            f"'{lazy[0]}' of '{model.backbone}' has no size before the first batch",
            "Give its layer the number of inputs, in place of a lazy layer",
        )
    return network
