"""From the section `optimizer` of the configuration to the optimizer of one block."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.config import OptimizerConfig
from pipeline.config import optimizers as settings
from pipeline.optim.groups import parameter_groups
from pipeline.optim.lars import Lars, LarsClipped, LarsLrInMomentum


def build_optimizer(config: OptimizerConfig, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that `optimizer.kind` names, for all parameters of `module`.

    Its learning rate is 0: before every step the caller sets each group's `lr` to the schedule's rate
    times the group's `lr_ratio`. Weight decay and layer-wise scaling are set per group.
    """
    ratio = 1.0 if config.bias_lr is None else config.bias_lr / config.lr
    lars_weight = config.lars_weight if isinstance(config, settings.LayerWiseConfig) else None
    groups = parameter_groups(module, config.exclude, config.weight_decay, ratio, lars_weight)
    match config:
        case settings.LarsConfig():
            return Lars(groups, lr=0.0, momentum=config.momentum, eta=config.eta)
        case settings.LarsLrInMomentumConfig():
            return LarsLrInMomentum(groups, lr=0.0, momentum=config.momentum, eta=config.eta)
        case settings.LarsClippedConfig():
            return LarsClipped(groups, lr=0.0, momentum=config.momentum, eta=config.eta, eps=config.eps)
        case settings.SGDConfig():
            return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, nesterov=config.nesterov)
        case settings.AdamWConfig():
            return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps)
