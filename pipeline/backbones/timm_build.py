"""Builds networks of timm by name, with random weights: nothing is downloaded, and no file of weights is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from pipeline.config.model import ModuleConfig, TimmConfig
from pipeline.errors import ConfigError, did_you_mean, first_line

REFUSED = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "num_classes",
    "features_only", "scriptable",
)  # fmt: skip
"""Arguments of `timm.create_model` that load weights, or make something else than the plain network."""


def build_timm(model: TimmConfig) -> nn.Module:
    """The network without its classifier.

    Raises:
        ConfigError: timm is not installed or has no such network, or an option is refused.
    """
    try:
        import timm
    except ImportError as error:
        problem = f"'{model.backbone}' needs timm ({first_line(error)})"
        raise ConfigError("model.backbone", problem, 'Install it: pip install "onward[timm]"') from None
    name = model.backbone.removeprefix("timm/")
    if not timm.is_model(name):
        remedy = f"{did_you_mean(name, timm.list_models(), most=3)}timm.list_models() has all"
        raise ConfigError("model.backbone", f"timm {timm.__version__} has no network '{name}'", remedy)
    for key in model.options.keys() & set(REFUSED):
        problem = "networks are built plain, without a classifier and with random weights"
        raise ConfigError(f"model.options.{key}", problem, "Leave it out")
    create: Callable[..., Any] = timm.create_model
    try:
        network: nn.Module = create(name, pretrained=False, num_classes=0, **model.options)
    except Exception as error:
        path, remedy = "model.backbone", "Choose another network"
        if model.options:
            path, remedy = "model.options", f"Give arguments of timm.create_model('{name}', ...)"
        raise ConfigError(path, f"timm cannot build '{name}' ({first_line(error)})", remedy) from None
    return network


def untraced_functions(model: ModuleConfig) -> list[Callable[..., Any]]:
    """The functions that timm asks tracers not to look into, because they branch on sizes; none for other networks."""
    if not isinstance(model, TimmConfig):
        return []
    from timm import layers

    registered: Callable[[], list[Callable[..., Any]]] = layers.get_notrace_functions  # type: ignore[attr-defined]
    return list(registered())
