"""The views that LiDAR measures on: keyed, alternating in kind, and as many as asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import AugmentConfig, DataConfig, JitterConfig
from pipeline.config.data import CropsConfig
from pipeline.config.evaluation import QualityConfig
from pipeline.data.augment.views import ViewMaker
from pipeline.data.sets.datasets import open_dataset
from pipeline.errors import ConfigError, UserError
from pipeline.evaluation.quality_views import QualityViews

PLAIN = DataConfig(image_size=28)


def made(data: DataConfig = PLAIN, samples: int = 20, views: int = 4, seed: int = 0) -> NDArray[np.uint8]:
    """All views, `[n, q, S, S, 3]`."""
    maker = QualityViews(data, open_dataset(data, "train"), QualityConfig(samples=samples, views=views), seed)
    assert len(maker) == samples * views
    return maker.make(range(samples * views)).reshape(samples, views, data.image_size, data.image_size, 3)


def test_views_depend_on_seed_and_image_and_on_nothing_else() -> None:
    views = made()
    assert views.shape == (20, 4, 28, 28, 3)
    assert np.array_equal(made(), views)
    assert np.array_equal(made(views=9)[:, :4], views)
    assert np.array_equal(made(samples=10), views[::2])  # every second of the images, which are evenly spaced
    assert not np.array_equal(made(seed=1), views)
    maker = QualityViews(PLAIN, open_dataset(PLAIN, "train"), QualityConfig(samples=20, views=4), 0)
    rows = [53, 54, 55, 56, 2, 77]
    assert np.array_equal(maker.make(rows), views.reshape(80, 28, 28, 3)[rows])  # whatever was made before
    assert maker.make([]).shape == (0, 28, 28, 3)
    assert len({view.tobytes() for view in views.reshape(80, -1)}) == 80


def test_the_draws_are_not_those_of_training() -> None:
    images, trained = open_dataset(PLAIN, "train"), np.empty((2, 28, 28, 3), np.uint8)
    ViewMaker(PLAIN, 2, 0).make(images.pixels(0), 0, 0, list(trained))
    assert not np.array_equal(made()[0, :2], trained)


def test_images_are_evenly_spaced() -> None:
    images = open_dataset(PLAIN, "train")
    indices = QualityViews(PLAIN, images, QualityConfig(samples=7, views=2), 0).indices
    assert indices == [len(images) * number // 7 for number in range(7)]
    assert QualityViews(PLAIN, images, QualityConfig(samples=len(images)), 0).indices == list(range(len(images)))


def test_both_halves_of_the_augmentation_take_turns() -> None:
    off = JitterConfig(p=(0.0, 0.0))
    solarised = AugmentConfig(
        crop_p=(0.0, 0.0), flip_p=(0.0, 0.0), jitter=off, gray_p=(0.0, 0.0), blur_p=(0.0, 0.0), solarize_p=(0.0, 1.0)
    )
    views = made(PLAIN.model_copy(update={"augment": solarised}), views=5)
    assert (views[:, ::2] == views[:, :1]).all()
    assert (views[:, 1::2] == views[:, 1:2]).all()
    assert (views[:, 0] != views[:, 1]).any()


def test_small_crops_are_left_out() -> None:
    multi_crop = PLAIN.model_copy(
        update={"views": (CropsConfig(count=2), CropsConfig(count=6, size=12, crop_scale=(0.05, 0.2)))}
    )
    assert np.array_equal(made(multi_crop), made())


def test_more_images_than_there_are() -> None:
    count = len(open_dataset(PLAIN, "train"))
    with pytest.raises(ConfigError, match=rf"^evaluation.quality.samples: got {count + 1}, .* Give 2 to {count}$"):
        made(samples=count + 1)


def folder_with_a_broken_image(root: Path) -> DataConfig:
    random = np.random.default_rng(0)
    (root / "train" / "a").mkdir(parents=True)
    for index in range(6):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
            root / "train" / "a" / f"{index}.png"
        )
    (root / "train" / "a" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return DataConfig(name="image_folder", root=str(root), image_size=16)


def test_an_image_that_cannot_be_decoded(tmp_path: Path) -> None:
    data = folder_with_a_broken_image(tmp_path)
    with pytest.raises(UserError, match=r"3\.png"):
        made(data, samples=6)
    skipping = data.model_copy(update={"on_error": "skip"})
    views = made(skipping, samples=6)
    assert np.array_equal(made(skipping, samples=6), views)
    assert views[3].any()


def test_no_image_can_be_decoded(tmp_path: Path) -> None:
    data = folder_with_a_broken_image(tmp_path).model_copy(update={"on_error": "skip"})
    for path in (tmp_path / "train" / "a").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"0\.png.* nor can the images tried in its place"):
        made(data, samples=2)
