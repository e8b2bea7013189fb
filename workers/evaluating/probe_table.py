"""The probe table of `report.json`: the trained network beside the same network untrained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from pipeline.config import Config
from pipeline.config.places import Place
from pipeline.data.sets.datasets import Split
from pipeline.evaluation.blocks import FEATURES, score_blocks
from pipeline.evaluation.feature_set import FeatureSet
from pipeline.evaluation.features import places_of
from pipeline.serial import build_stages
from pipeline.stage.stage import Stage
from workers.evaluating.feature_source import FeatureSource
from workers.evaluating.labelled_images import Progress
from workers.run.compute import cpu_threads, set_up_compute


def ready_stages(config: Config, device: torch.device) -> list[Stage]:
    """The network of a run as it is initialised, in evaluation mode, on `device`, which is set up as for training."""
    set_up_compute(config)
    stages = build_stages(config.with_torch_engines(), 1, device)
    for stage in stages:
        stage.eval()
    return stages


def table_features(
    source: FeatureSource, split: Split, more: tuple[Place, ...] = (), progress: Progress = lambda *how_far: None
) -> FeatureSet:
    """The features that the table needs, and those at `more` places in the same pass; raises `UserError`."""
    places = dict.fromkeys((*places_of(source.stages, FEATURES), *more))
    data = source.config.data
    return source.get(split, source.images(data, split, progress), data, tuple(places), progress)


def scores_of(
    source: FeatureSource, measured: Mapping[Place, float] | None = None, progress: Progress = lambda *how_far: None
) -> list[dict[str, Any]]:
    """One row per block.

    Args:
        source: of the network's features.
        measured: accuracies of the quick probe that have been measured already.
        progress: called with how far the fitting is.

    Raises:
        UserError: the data has no labels or no test split, or the features are not finite.
    """
    train, test = (table_features(source, split, progress=progress) for split in ("train", "test"))
    # A probe is thousands of tiny steps: threads gain nothing there, and lose much where cores are shared.
    with cpu_threads(1):
        return [asdict(score) for score in score_blocks(train, test, measured, partial(progress, "linear probes"))]
