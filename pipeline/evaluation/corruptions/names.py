"""The names of the corruptions; without torch, because the configuration uses them too."""

from __future__ import annotations

from typing import Literal

from pipeline.errors import ConfigError, allowed_names

STANDARD = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
"""The 15 corruptions of the mean corruption error (Hendrycks and Dietterich, section 4.1), in the paper's order."""
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The four that the paper keeps for validation."""
SEVERITIES = (1, 2, 3, 4, 5)


def resolve(names: Literal["none", "standard", "all"] | tuple[str, ...]) -> tuple[str, ...]:
    """The corruptions that `evaluation.corruptions.names` stands for, each once, in the order of the paper.

    Raises:
        ConfigError: there is no such corruption.
    """
    if isinstance(names, str):
        return {"none": (), "standard": STANDARD, "all": STANDARD + EXTRA}[names]
    for name in names:
        if name not in STANDARD + EXTRA:
            raise ConfigError(
                "evaluation.corruptions.names",
                f"there is no corruption '{name}'",
                allowed_names(name, (*STANDARD, *EXTRA, "none", "standard", "all")),
            )
    return tuple(name for name in STANDARD + EXTRA if name in names)


def averaged(names: tuple[str, ...]) -> tuple[str, ...]:
    """The corruptions that a mean is taken over: the standard ones, as in the paper; all if there is none of them."""
    return tuple(name for name in names if name in STANDARD) or names
