"""The local losses, one file each; `OBJECTIVES` is where a new one is named.

- `barlow_twins.py`: Barlow Twins (Zbontar et al. 2021, equation 1): make the views agree, dimension by dimension
- `base.py`: what all objectives share: the embeddings that they are given, and the module that they are
- `byol.py`: BYOL (Grill et al. 2020, equation 2): predict what the target network says of the other view
- `own_losses.py`: a loss of the user's own, called once before a run, so that its mistakes cost seconds and not a
  start
- `returned.py`: what a loss of the user's own returns, made regular or named in our words
- `simclr.py`: SimCLR (Chen et al. 2020, equation 1, NT-Xent): tell an image's other view from what is not that image
- `supervised.py`: supervised training of a block: cross-entropy of the head's outputs, taken as classes, with the
  labels
- `vicreg.py`: VICReg (Bardes et al. 2022, equation 6): the views agree, every dimension varies, no two say the same
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.config import objectives as settings
from pipeline.errors import ConfigError
from pipeline.objectives.barlow_twins import BarlowTwins
from pipeline.objectives.base import Embeddings, Objective
from pipeline.objectives.byol import BYOL
from pipeline.objectives.returned import regular
from pipeline.objectives.simclr import SimCLR
from pipeline.objectives.supervised import Supervised
from pipeline.objectives.vicreg import VICReg
from pipeline.plugins import Named
from pipeline.randomness import seeded_initialisation

OBJECTIVES: dict[str, Callable[[Any, int, int, int], Objective]] = {
    "barlow_twins": BarlowTwins,
    "simclr": SimCLR,
    "vicreg": VICReg,
    "byol": BYOL,
    "supervised": Supervised,
}
"""A loss that is not here is named in the configuration as `PACKAGE.MODULE:CLASS`."""

__all__ = ["OBJECTIVES", "Embeddings", "Objective", "build_objective"]


def build_objective(config: settings.ObjectiveConfig, width: int, seed: int, stage: int) -> Objective:
    """The objective that `objective.kind` names.

    Args:
        config: the stage's section `objective`.
        width: size D of the stage's embeddings.
        seed, stage: key the initialisation of the objective's own weights, if it has any.

    Raises:
        ConfigError: the section does not fit the embeddings, or names a class that cannot be used.
    """
    if not isinstance(config, settings.CustomConfig):
        return OBJECTIVES[config.kind](config, width, seed, stage)
    with seeded_initialisation(seed, "objective", stage):
        own = Named("objective.kind", config.kind, "objective.options", config.options).call(width)
    if not isinstance(own, Objective):
        problem = f"'{config.kind}' is no pipeline.objectives.Objective (it made a {type(own).__name__})"
        raise ConfigError("objective.kind", problem, "Derive the class from it, as pipeline/objectives/vicreg.py does")
    if own.uses_target:
        raise ConfigError("objective.kind", f"'{config.kind}' wants a target network", "Only byol has one; use it")
    name = config.kind
    own.register_forward_hook(lambda _module, _inputs, returned: regular(name, returned))
    return own
