"""Where a network is cut whose configuration leaves that open, decided before the start and kept by the run."""

from __future__ import annotations

from pipeline.config import Config
from pipeline.config.model import TimmConfig
from pipeline.validation.combinations import check_combinations


def checked(config: Config, build: bool = True) -> Config:
    """`config` with its points found, and checked across sections.

    Args:
        config: the validated configuration.
        build: whether a network may be built. If not, the points were found when the run began.

    Raises:
        ConfigError: as `with_points`, and for the first combination that cannot work.
    """
    config = with_points(config) if build else config
    check_combinations(config, build)
    return config


def with_points(config: Config) -> Config:
    """`config` with the names of the points at which a network of timm is cut; any other network as it is.

    Raises:
        ConfigError: timm is missing, or the network cannot be built or cut into so many blocks.
    """
    model = config.model
    if not isinstance(model, TimmConfig) or (model.output and "cuts" in model.model_fields_set):
        return config
    from pipeline.backbones.timm_points import with_found_points  # loads torch and timm

    return config.model_copy(update={"model": with_found_points(model, config.data.image_size)})
