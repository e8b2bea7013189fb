"""Corrupted images as arrays, as CIFAR-10-C has them: whatever is not such an array is refused with its shape."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pipeline.data.sets.datasets import ImageDataset
from pipeline.errors import UserError
from pipeline.evaluation.corrupted_sets import CorruptedSets

LABELS = np.array([0, 1, 2, 1])
CLEAN = cast(ImageDataset, SimpleNamespace(labels=LABELS, num_classes=3))


def opened(folder: Path, images: Any, severity: int = 2) -> Any:
    np.save(folder / "labels.npy", np.tile(LABELS, 5))
    np.save(folder / "contrast.npy", images)
    return CorruptedSets(str(folder), ["contrast"], [severity], CLEAN).open("contrast", severity)


@pytest.mark.parametrize("shape", [(20, 8, 8, 3), (20, 8, 8)])
@pytest.mark.parametrize("severity", [1, 2, 5])
def test_the_images_of_a_severity_lie_one_after_the_other(
    tmp_path: Path, shape: tuple[int, ...], severity: int
) -> None:
    whole = np.arange(20, dtype=np.uint8).reshape(20, *[1] * (len(shape) - 1)) * np.ones(shape, np.uint8)
    found = opened(tmp_path, whole, severity)
    assert len(found) == 4
    first = 4 * (severity - 1)
    assert [found.pixels(index).reshape(-1)[0] for index in range(4)] == list(range(first, first + 4))
    assert list(found.labels) == LABELS.tolist()


@pytest.mark.parametrize("shape", [(20, 8), (20, 8, 8, 1), (20, 8, 8, 4), (20, 8, 8, 3, 1)])
def test_an_array_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    text = re.escape(f"contrast.npy' holds uint8 {list(shape)}, and not uint8 [5 N, H, W, 3]")
    with pytest.raises(UserError, match=text):
        opened(tmp_path, np.zeros(shape, np.uint8))


def test_a_file_of_several_arrays_is_refused(tmp_path: Path) -> None:
    opened(tmp_path, np.zeros((20, 8, 8), np.uint8))
    with (tmp_path / "contrast.npy").open("wb") as file:
        np.savez(file, a=np.zeros(3), b=np.zeros(3))
    sets = CorruptedSets(str(tmp_path), ["contrast"], [1], CLEAN)
    with pytest.raises(UserError, match=r"contrast\.npy' holds several arrays, and must be one \.npy file\. Fetch"):
        sets.open("contrast", 1)
