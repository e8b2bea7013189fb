"""How a block's parameters move: the variants of LARS, parameter groups, and learning rates by the step.

- `build.py`: from the section `optimizer` of the configuration to the optimizer of one block
- `groups.py`: which parameters of a block are spared weight decay and layer-wise scaling, and move at a rate of their
  own
- `lars.py`: layer-wise adaptive rate scaling (LARS, You et al. 2017) in the three forms that released codes disagree
  on
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
