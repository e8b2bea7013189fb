"""All rows, in the order of the table."""

from __future__ import annotations

from tests.gpu import bits, cost_rows, speed_rows
from tests.gpu.results import Row


def all_rows() -> list[Row]:
    """Those of the four parts: bits; ResNet-50; ViT-S and memory; links, feed, augmentation, metrics, operations."""
    return [*bits.rows(), *speed_rows.rows(), *cost_rows.rows()]
