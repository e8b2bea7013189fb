"""A loss of a user's own that is finite and whose gradient is not."""

from __future__ import annotations

from torch import Tensor

from pipeline.objectives import Embeddings, Objective


class RootOfNothing(Objective):
    """The root of 0, whose slope has no end."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, embeddings: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        return (0 * embeddings.views[0]).square().sum().sqrt(), {}
