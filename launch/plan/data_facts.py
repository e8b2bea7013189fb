"""What is known of the data set of a run before it starts."""

from __future__ import annotations

from launch.plan.account import DataFacts
from launch.prepare.preflight import RunPlan
from pipeline.config import Config, DataConfig
from pipeline.data.sets.datasets import Splits, count_classes, preflight_test
from pipeline.data.sets.mnist_family import IDX_SETS
from pipeline.data.sets.shared import shared_bytes
from pipeline.data.sets.torchvision_sets import TORCHVISION_SETS
from pipeline.errors import OnwardError


def facts_of(plan: RunPlan, splits: Splits) -> DataFacts:
    """After the data was checked; what torchvision reads is not opened."""
    opened, shared = _bytes(splits)
    return DataFacts(
        images=plan.num_images,
        test_images=plan.num_test_images,
        classes=plan.num_classes,
        opened=opened,
        shared=shared,
    )


def facts_without_plan(config: Config) -> DataFacts:
    """As far as the data are at hand; nothing is said of those that are not."""
    data, splits = config.data, Splits(config.data)
    try:
        classes = count_classes(splits)
        if not _at_hand(data):
            known = TORCHVISION_SETS.get(data.name)
            parts = IDX_SETS[data.name].published if known is None else known.parts
            return DataFacts(images=parts[data.split or next(iter(parts))], classes=classes)
        opened, shared = _bytes(splits)
        tests = preflight_test(splits)
        return DataFacts(images=len(splits.train), test_images=tests, classes=classes, opened=opened, shared=shared)
    except (OnwardError, KeyError):
        return DataFacts()


def _at_hand(data: DataConfig) -> bool:
    """Whether opening the data set loads no torch and downloads nothing."""
    return data.name not in TORCHVISION_SETS and not (data.name in IDX_SETS and data.download)


def _bytes(splits: Splits) -> tuple[int | None, int | None]:
    """Memory of a process that has opened the training set, and of the block that workers share."""
    data = splits.data
    if not _at_hand(data):
        return None, None
    shares = data.workers or data.in_memory
    return shared_bytes(splits.train, False), shared_bytes(splits.train, data.in_memory) if shares else 0
