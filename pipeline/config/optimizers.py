"""`optimizer`: optimizers and learning-rate schedules, which are functions of the step."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, Tag, ValidationInfo, field_validator

from pipeline.config.base import NonNegative, PositiveFloat, Probability, Section
from pipeline.config.kinds import by_key

Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]


class ScheduledConfig(Section):
    """The keys that all optimizers have: learning rates, their schedule, exclusion and clipping."""

    lr: PositiveFloat = 0.2
    """Learning rate for a batch of 256; multiplied by `batch_size / 256` if `scale_lr` is set."""
    bias_lr: PositiveFloat | None = None
    """Learning rate of biases and norms (the parameters that `exclude` names), scaled like `lr`; `lr` if not given."""
    scale_lr: bool = True
    """Multiply `lr` and `bias_lr` by `data.batch_size / 256`; false uses them unchanged."""
    weight_decay: NonNegative = 1e-6
    """Factor of a parameter that is added to its gradient (AdamW: subtracted from it, times the learning rate)."""
    exclude: Literal["dimension", "type", "none"] = "dimension"
    """Parameters without weight decay and layer-wise scaling. `dimension`: those with one dimension, as
    released. `type`: all but the weights of linear layers and convolutions. `none`: no parameter."""
    clip_norm: PositiveFloat | None = None
    """Scale the block's gradient down to this norm where it is larger."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Schedule after the warm-up: half a cosine, a factor `gamma` at each milestone, or constant."""
    warmup_epochs: NonNegative = 10
    """Epochs of linear warm-up from zero, updated at every step."""
    final_ratio: Probability = 0.001
    """The cosine ends at this share of the learning rate."""
    milestones: Annotated[tuple[PositiveFloat, ...], Field(validate_default=True)] = ()
    """Epochs at which the schedule `step` multiplies the learning rate by `gamma`."""
    gamma: PositiveFloat = 0.1
    """Factor of the schedule `step` at each milestone."""

    @field_validator("milestones")
    @classmethod
    def _increase(cls, milestones: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if info.data.get("schedule") == "step" and not milestones:
            raise ValueError(
                "the schedule step changes the learning rate at milestones, and there are none. "
                "Give optimizer.milestones=[60,80], or optimizer.schedule=constant"
            )
        if any(later <= earlier for earlier, later in pairwise(milestones)):
            shown = ", ".join(f"{epoch:g}" for epoch in milestones)
            raise ValueError(f"got [{shown}], which does not increase. Give each epoch once, the earliest first")
        return milestones


class LayerWiseConfig(ScheduledConfig):
    """The keys that all variants of LARS have."""

    momentum: Momentum = 0.9
    """Momentum, below 1."""
    eta: PositiveFloat = 0.001
    """Trust coefficient."""
    lars_weight: Probability = 1.0
    """Weight of the layer-wise scaling: 0 is SGD, 1 is LARS."""


class LarsConfig(LayerWiseConfig):
    """LARS as released: the learning rate multiplies the momentum buffer."""

    kind: Literal["lars"] = "lars"


class LarsLrInMomentumConfig(LayerWiseConfig):
    """LARS of the BYOL report: the learning rate of each step goes into the momentum buffer."""

    kind: Literal["lars_lr_in_momentum"] = "lars_lr_in_momentum"


class LarsClippedConfig(LayerWiseConfig):
    """LARS of apex and solo-learn: weight decay and an epsilon in the denominator, the scaled rate clipped to lr."""

    kind: Literal["lars_clipped"] = "lars_clipped"
    eps: PositiveFloat = 1e-8
    """Added to the denominator of the layer-wise ratio."""
    eta: PositiveFloat = 0.02


class SGDConfig(ScheduledConfig):
    """Stochastic gradient descent."""

    kind: Literal["sgd"] = "sgd"
    lr: PositiveFloat = 0.05
    momentum: Momentum = 0.9
    """Momentum, below 1; 0 for none."""
    nesterov: bool = False
    """Nesterov momentum; needs a momentum above 0."""

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise ValueError(
                "got true, and Nesterov's step is made of the momentum, which is 0. "
                "Give optimizer.momentum=0.9, or optimizer.nesterov=false"
            )
        return nesterov


class AdamWConfig(ScheduledConfig):
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegative = 0.01
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    """Decay rates of the running means of the gradient and of its square, each below 1."""
    eps: PositiveFloat = 1e-8
    """Added to the denominator of a step."""


OptimizerConfig = Annotated[
    Annotated[LarsConfig, Tag("lars")]
    | Annotated[LarsLrInMomentumConfig, Tag("lars_lr_in_momentum")]
    | Annotated[LarsClippedConfig, Tag("lars_clipped")]
    | Annotated[SGDConfig, Tag("sgd")]
    | Annotated[AdamWConfig, Tag("adamw")],
    by_key("kind", "lars"),
]
