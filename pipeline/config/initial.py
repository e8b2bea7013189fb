"""`init_from`: the weights that a run, or one of its stages, begins with."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline.config.base import Section, as_tuple


def with_path(value: Any) -> Any:
    """A path alone is short for the section with that path; `none` for the one without."""
    if value is None or value == "none":
        return {"path": None}
    return {"path": value} if isinstance(value, str) else value


class InitFromConfig(Section):
    """Weights to begin with, in place of random ones; a path alone is short for the section with that path.

    Optimizer state is never taken. See `docs/how-to/weights.md`.
    """

    path: str | None = None
    """A run (`RUN`), a snapshot of one (`RUN@STEPS`), or a file: safetensors, or a `.pth` of `torch.save`. The names in
    it may be those of torchvision, timm, transformers or the released blockwise code. Random weights if not given."""
    heads: Literal["auto"] | bool = "auto"
    """Whether the heads are taken, too. `auto`: of a stage where the source has one of the same shape for the same
    block, and the run says where. `true`: it is an error where it has not. `false`: the backbone alone."""
    allow: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    """Names of tensors, with `*` for any text, that may be missing, unexpected or of another shape: what is missing
    keeps its random weights, and what is unexpected is left out."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Digest of what the weights are read from; the run fills it in. If given, anything else is refused."""


InitFromOrPath = Annotated[InitFromConfig, BeforeValidator(with_path)]
