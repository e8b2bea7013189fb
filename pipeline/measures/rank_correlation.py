"""Rank correlations of a measure with the accuracy of networks, as the LiDAR paper reports them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RankCorrelation:
    """Both from -1 to 1; 1: the same order, 0: no relation.

    Args:
        kendall: Kendall's tau-b, which takes ties into account.
        spearman: Spearman's rho.
    """

    kendall: float
    spearman: float


def rank_correlation(scores: Sequence[float], accuracies: Sequence[float]) -> RankCorrelation | None:
    """The agreement of two orders of the same networks; None where all values of one are equal.

    Args:
        scores: larger is better.
        accuracies: of the same length, two or more.
    """
    if len(set(scores)) < 2 or len(set(accuracies)) < 2:
        return None
    from scipy import stats  # its import takes a second

    kendall, spearman = stats.kendalltau(scores, accuracies), stats.spearmanr(scores, accuracies)
    return RankCorrelation(float(kendall.statistic), float(spearman.statistic))
