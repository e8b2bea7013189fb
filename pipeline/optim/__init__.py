"""How a block's parameters move: the variants of LARS, parameter groups, and learning rates by the step."""

from pipeline.optim.build import build_optimizer
from pipeline.optim.groups import parameter_groups
from pipeline.optim.lars import Lars, LarsClipped, LarsLrInMomentum
from pipeline.optim.schedules import Schedule, WarmupConstant, WarmupCosine, WarmupStep, build_schedule

__all__ = [
    "Lars",
    "LarsClipped",
    "LarsLrInMomentum",
    "Schedule",
    "WarmupConstant",
    "WarmupCosine",
    "WarmupStep",
    "build_optimizer",
    "build_schedule",
    "parameter_groups",
]
