"""Linear-probe accuracy of every block, on the trunk and the expansion feature: the table at the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.config.places import Feature, Place
from pipeline.evaluation.feature_set import FeatureSet
from pipeline.measures.linear import linear_probe_accuracy

FEATURES: tuple[Feature, ...] = ("trunk", "expansion")


@dataclass(frozen=True)
class BlockScore:
    """Top-1 accuracy, 0 to 1, of a linear classifier on the features of one block."""

    block: int
    trunk: float
    expansion: float | None
    """None for a block without a head: in mode end_to_end only the last block has one."""


def score_blocks(
    train: FeatureSet,
    test: FeatureSet,
    earlier: Mapping[Place, float] | None = None,
    fitted: Callable[[int, int], None] = lambda done, total: None,
) -> list[BlockScore]:
    """Fit a probe on each feature of each block, and test it.

    Args:
        train, test: both features of every block that has them; other features are ignored.
        earlier: scores of such probes that have been fitted already.
        fitted: called with the number of fitted probes and of all probes, before each and at the end.
    """
    scores = dict(earlier or {})
    missing = [place for place in train.features if place.feature in FEATURES and place not in scores]
    for number, place in enumerate(missing):
        fitted(number, len(missing))
        features = train.features[place], train.labels, test.features[place], test.labels
        scores[place] = linear_probe_accuracy(*features)
    fitted(len(missing), len(missing))
    blocks = sorted({place.block for place in scores})
    return [BlockScore(block, scores[Place(block, "trunk")], scores.get(Place(block, "expansion"))) for block in blocks]
