"""The system is told which images come next, exactly those, and a file that is gone is no error yet."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import DataConfig
from pipeline.data.sets.datasets import open_dataset
from pipeline.data.sets.shared import open_shared, share

COUNT = 6


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (60 + number, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that the kernel was told of."""
    names: list[str] = []

    def note(descriptor: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_WILLNEED)
        names.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    monkeypatch.setattr(os, "posix_fadvise", note)
    return names


def data(root: Path, **keys: object) -> DataConfig:
    return DataConfig(name="image_folder", root=str(root), batch_size=2, image_size=16, **keys)  # type: ignore[arg-type]


def test_files_that_are_expected(photos: Path, advised: list[str]) -> None:
    images = open_dataset(data(photos), "train")
    images.prefetch([4, 1])
    assert advised == ["4.png", "1.png"]


def test_a_file_that_is_gone_shows_when_it_is_read(photos: Path, advised: list[str]) -> None:
    images = open_dataset(data(photos), "train")
    (photos / "0.png").unlink()
    images.prefetch([0, 1])
    assert advised == ["1.png"]


def test_no_file_stays_open(photos: Path) -> None:
    images = open_dataset(data(photos), "train")
    before = os.listdir("/proc/self/fd")
    images.prefetch(range(COUNT))
    assert os.listdir("/proc/self/fd") == before


def test_what_is_in_memory_needs_no_file(photos: Path, advised: list[str]) -> None:
    descriptor = share(open_dataset(data(photos), "train"), True)
    assert descriptor is not None
    open_shared(descriptor).prefetch([0])
    os.close(descriptor)
    open_dataset(DataConfig(), "train").prefetch([0])
    assert advised == []
