"""`objective`: the loss of a block."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, Tag, field_validator

from pipeline.config.base import NAME_PATTERN, NonNegative, PositiveFloat, PositiveInt, Probability, Section
from pipeline.config.kinds import by_key


class BarlowTwinsConfig(Section):
    """Cross-correlation of the two views' embeddings, driven to the identity."""

    kind: Literal["barlow_twins"] = "barlow_twins"
    lambd: NonNegative = 0.0051
    """Weight of the off-diagonal terms."""
    scale: PositiveFloat = 0.024
    """Factor on the whole loss (`--scale-loss` of the released code)."""
    reference_world_size: PositiveInt = 1
    """Divide the gradient by this: the released code's all-reduce is not differentiated, so its
    gradient is the true one divided by the number of ranks (16 in the paper's command)."""


class SimCLRConfig(Section):
    """NT-Xent: classify an image's other view among all views of the batch."""

    kind: Literal["simclr"] = "simclr"
    temperature: PositiveFloat = 0.15
    """Divisor of the similarities before the softmax; the smaller, the more the hardest negatives count."""
    negatives: Literal["batch", "single_patch"] = "batch"
    """`batch`: all other images. `single_patch`: one patch of the same image, a third view that
    `data.augment.patch_scale` describes; the loss then never compares two images."""


class VICRegConfig(Section):
    """Invariance, variance and covariance."""

    kind: Literal["vicreg"] = "vicreg"
    invariance_weight: NonNegative = 25.0
    """Weight of the squared distance of the two views."""
    variance_weight: NonNegative = 25.0
    """Weight of the hinge loss on each dimension's standard deviation, whose margin is 1."""
    covariance_weight: NonNegative = 1.0
    """Weight of the squared covariances of different dimensions."""
    std_halved: bool = True
    """Halve the variance term of each view, as the released code does; the paper does not."""


class BYOLConfig(Section):
    """Predict the embedding of the other view by a target network, a moving average of the block."""

    kind: Literal["byol"] = "byol"
    momentum: float | None = 0.996
    """Momentum of the target network at the first step."""
    momentum_schedule: Literal["cosine", "constant"] = "cosine"
    """`cosine`: from `momentum` at the first step to 1 at the last."""
    momentum_update: Literal["before_forward", "after_update"] = "before_forward"
    """When the target is updated: before the forward pass of a step, as in the reproduction report, or after the
    optimizer step of the online network."""
    predictor: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    """Widths of the predictor's layers, the last as wide as the embedding. If not given they are those of the
    projector, as in both released codes; one layer where there is no projector."""

    @field_validator("momentum")
    @classmethod
    def _moves_slowly(cls, value: float | None) -> float | None:
        if value is None or not 0.0 < value < 1.0:
            shown = "null" if value is None else f"{value:g}"
            raise ValueError(
                f"got {shown}, and without a momentum between 0 and 1 the target is no slow copy of the block, "
                "and both may collapse. Give objective.momentum=0.996, or objective.kind=simclr, which has no target"
            )
        return value


class LeJEPAConfig(Section):
    """Predict the mean of the views, and keep the embeddings normally distributed; no teacher, any number of views."""

    kind: Literal["lejepa"] = "lejepa"
    lambd: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Weight of the distance from the normal distribution (SIGReg); the prediction has the rest, up to 1."""
    directions: PositiveInt = 256
    """Random directions on which the embeddings are projected, drawn anew at every step."""
    knots: Annotated[int, Field(ge=2)] = 17
    """Points at which the characteristic functions are compared, from 0 to `t_max`."""
    t_max: PositiveFloat = 3.0
    """Greatest argument of the characteristic functions."""
    global_views: PositiveInt | None = None
    """Number of views, the first ones, whose mean all views predict; all of them if not given. With smaller views in
    `data.views` (multi-crop) the large ones, as published."""


class SupervisedConfig(Section):
    """Cross-entropy with the images' labels; the projector's outputs are the classes."""

    kind: Literal["supervised"] = "supervised"
    label_smoothing: Probability = 0.0
    """Share of the target that is spread evenly over all classes; 0 for none."""


class CustomConfig(Section):
    """A custom loss: a user's class derived from `pipeline.objectives.Objective`."""

    kind: Annotated[str, Field(pattern=NAME_PATTERN)]
    """`PACKAGE.MODULE:CLASS`; called with the size of the embeddings, then the options."""
    options: dict[str, Any] = Field(default={})
    """Keyword arguments of the class."""


def _family(kind: str) -> str:
    return "custom" if re.match(NAME_PATTERN, kind) else kind


ObjectiveConfig = Annotated[
    Annotated[BarlowTwinsConfig, Tag("barlow_twins")]
    | Annotated[SimCLRConfig, Tag("simclr")]
    | Annotated[VICRegConfig, Tag("vicreg")]
    | Annotated[BYOLConfig, Tag("byol")]
    | Annotated[LeJEPAConfig, Tag("lejepa")]
    | Annotated[SupervisedConfig, Tag("supervised")]
    | Annotated[CustomConfig, Tag("custom")],
    by_key("kind", "barlow_twins", _family),
]
