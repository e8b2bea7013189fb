"""The local losses, one file each.

A new one is registered in `OBJECTIVES` of this file, and its keys in `config/objectives.py`.

- `barlow_twins.py`: Barlow Twins (Zbontar et al. 2021, equation 1): make the views agree, dimension by dimension
- `base.py`: the base class of all objectives and its input, the embeddings
- `byol.py`: BYOL (Grill et al. 2020, equation 2): predict the target network's embedding of the other view
- `custom_losses.py`: calls every custom loss once before a run, so that its mistakes show within seconds
- `lejepa.py`: LeJEPA (Balestriero and LeCun 2025): predict the views' mean, and keep embeddings Gaussian
- `loss_result.py`: checks and normalises the return value of a custom loss
- `simclr.py`: SimCLR (Chen et al. 2020, equation 1, NT-Xent): classify an image's other view among negatives
- `supervised.py`: supervised training of a block: cross-entropy of the head's outputs with the labels
- `vicreg.py`: VICReg (Bardes et al. 2022, equation 6): invariance, variance and covariance
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.config import objectives as settings
from pipeline.errors import ConfigError
from pipeline.objectives.barlow_twins import BarlowTwins
from pipeline.objectives.base import Embeddings, Objective
from pipeline.objectives.byol import BYOL
from pipeline.objectives.lejepa import LeJEPA
from pipeline.objectives.loss_result import checked_result
from pipeline.objectives.simclr import SimCLR
from pipeline.objectives.supervised import Supervised
from pipeline.objectives.vicreg import VICReg
from pipeline.plugins import Plugin
from pipeline.randomness import seeded_initialisation

OBJECTIVES: dict[str, Callable[[Any, int, int, int], Objective]] = {
    "barlow_twins": BarlowTwins,
    "simclr": SimCLR,
    "vicreg": VICReg,
    "byol": BYOL,
    "lejepa": LeJEPA,
    "supervised": Supervised,
}
"""Losses by `objective.kind`; a custom loss is named in the configuration as `PACKAGE.MODULE:CLASS`."""

__all__ = ["OBJECTIVES", "Embeddings", "Objective", "build_objective"]


def build_objective(config: settings.ObjectiveConfig, width: int, seed: int, stage: int) -> Objective:
    """The objective that `objective.kind` names.

    Args:
        config: the stage's section `objective`.
        width: size D of the stage's embeddings.
        seed, stage: the key of the initialisation of the objective's weights, if it has any.

    Raises:
        ConfigError: the section does not fit the embeddings, or names a class that cannot be used.
    """
    if not isinstance(config, settings.CustomConfig):
        return OBJECTIVES[config.kind](config, width, seed, stage)
    with seeded_initialisation(seed, "objective", stage):
        objective = Plugin("objective.kind", config.kind, "objective.options", config.options).call(width)
    if not isinstance(objective, Objective):
        problem = (
            f"'{config.kind}' is no pipeline.objectives.Objective (calling it returned a {type(objective).__name__})"
        )
        raise ConfigError("objective.kind", problem, "Derive the class from it, as pipeline/objectives/vicreg.py does")
    if objective.uses_target:
        raise ConfigError("objective.kind", f"'{config.kind}' needs a target network", "Only byol has one; use it")
    name = config.kind
    objective.register_forward_hook(lambda _module, _inputs, returned: checked_result(name, returned))
    return objective
