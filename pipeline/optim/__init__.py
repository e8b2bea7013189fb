"""Optimizers: the variants of LARS, parameter groups, and learning rates as functions of the step.

- `build.py`: from the section `optimizer` of the configuration to the optimizer of one block
- `foreach.py`: one operation on many tensors
- `groups.py`: parameter groups: biases and norms without weight decay and layer-wise scaling, at their own rate
- `lars.py`: layer-wise adaptive rate scaling (LARS, You et al. 2017) in the three forms of released codes
- `schedules.py`: the learning rate as a pure function of the step
"""

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
