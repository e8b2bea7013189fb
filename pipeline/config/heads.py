"""`head`: computes the embedding that the loss reads from a block's output; discarded after training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Tag

from pipeline.config.base import PositiveInt, Section, as_tuple
from pipeline.config.kinds import by_key


def _none_is_empty(value: Any) -> Any:
    return () if value in ("none", None) else as_tuple(value)


class ProjectedConfig(Section):
    """The keys that all heads have: those of the projector."""

    projector: Annotated[tuple[PositiveInt, ...], BeforeValidator(_none_is_empty)] = (8192, 8192, 8192)
    """Widths of the projector's layers; `none` (or []) makes the pooled feature itself the embedding."""
    projector_bias: bool = False
    """Whether the last layer has a bias; the layers before a batch norm never have one."""
    projector_norm: bool = False
    """Batch norm without weights after the last layer (the SimCLR of the BYOL report)."""
    initialisation: Literal["shared", "independent"] = "shared"
    """`shared`: all blocks' projectors start with the same weights, as released. `independent`: each with its own."""


class ExpansionConfig(ProjectedConfig):
    """Convolution-based expansion (CbE): convolution, batch norm, ReLU, then global average pooling."""

    kind: Literal["expansion"] = "expansion"
    width: PositiveInt = 2048
    """Output channels of the expansion convolution."""
    filter: Literal[1, 3] = 1
    """Side of the expansion convolution, in pixels."""
    chunk: PositiveInt | None = None
    """Images per slice, on each replica, in which the expansion is computed, so that its map of `width` channels never
    exists for the whole batch; batch norm still uses the statistics of all images. Everything at once if not given,
    which rounds differently."""


class GlobalPoolingConfig(ProjectedConfig):
    """Global spatial pooling (GSP): the average over all pixels."""

    kind: Literal["gsp"] = "gsp"


class LocalPoolingConfig(ProjectedConfig):
    """Local spatial pooling (LSP): the averages over the cells of a grid, side by side."""

    kind: Literal["lsp"] = "lsp"
    grid: Annotated[int, Field(ge=1)] = 2
    """Cells along each side; the feature has `channels * grid**2` numbers."""


HeadConfig = Annotated[
    Annotated[ExpansionConfig, Tag("expansion")]
    | Annotated[GlobalPoolingConfig, Tag("gsp")]
    | Annotated[LocalPoolingConfig, Tag("lsp")],
    by_key("kind", "expansion"),
]
