"""Checks across the keys of measures while training (`evaluation.online`)."""

from __future__ import annotations

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.shapes import block_output, channels_of


def check_online(config: Config) -> None:
    """Raises `ConfigError` for the first combination that can never be measured."""
    online, ranks = config.evaluation.online, config.evaluation.quality.ranks
    if online.knn_bank and online.knn_k > online.knn_bank:
        problem = f"got {online.knn_k}, and a bank of {online.knn_bank} never has so many neighbours"
        raise ConfigError("evaluation.online.knn_k", problem, f"Give at most {online.knn_bank}, or a larger knn_bank")
    if not online.quality_every:
        return
    if online.quality_samples < 2:
        raise ConfigError("evaluation.online.quality_samples", "got 1, and a rank needs two samples", "Give 2 or more")
    widths = [channels_of(block_output(config, index)) for index in range(1, config.num_stages + 1)]
    eigenvalues = min(*widths, online.quality_samples)
    if min(ranks[1], eigenvalues) <= ranks[0]:
        problem = (
            f"got {list(ranks)}, which takes in fewer than two eigenvalues of {online.quality_samples} rows "
            f"(evaluation.online.quality_samples) of features as narrow as {min(widths)}"
        )
        raise ConfigError("evaluation.quality.ranks", problem, f"Begin below {eigenvalues}, or give more samples")


def check_labels(config: Config, classes: int) -> None:
    """Raises `ConfigError` if a measure needs labels and the training set has none (`classes` is 0)."""
    online = config.evaluation.online
    for key, wanted in (("linear", online.linear), ("knn_bank", online.knn_bank)):
        if wanted and not classes:
            problem = f"needs labels, and the images of {config.data.name} have none"
            raise ConfigError(f"evaluation.online.{key}", problem, "Leave it out, or give images in class folders")
