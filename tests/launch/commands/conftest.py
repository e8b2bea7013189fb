"""What tests of the commands share: a folder of photos to pack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import launch.commands.pack
from pipeline.data.sets import pack_writer


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten training and two test images of several sizes and kinds; shards of four."""
    monkeypatch.setattr(pack_writer, "IMAGES_PER_SHARD", 4)
    monkeypatch.setattr(launch.commands.pack, "IMAGES_PER_SHARD", 4)
    rng = np.random.default_rng(5)
    exif = Image.Exif()
    exif[0x0112] = 6
    for split, count in (("train", 5), ("val", 1)):
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                shape = [(90, 60, 3), (40, 100, 3), (20, 30, 3), (64, 48), (33, 70, 3)][i]
                coarse = Image.fromarray(rng.integers(0, 256, (5, 5, *shape[2:]), dtype=np.uint8))
                image = coarse.resize((shape[1], shape[0]))
                image.save(folder / f"{i}.{'png' if i == 4 else 'jpg'}", quality=95, exif=exif if i == 2 else b"")
    return tmp_path / "photos"
