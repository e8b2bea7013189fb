"""The pictures of a batch: in which order, called how, and showing what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workers.replaying.pictures import GAP, SeenImage, file_name, ranked, write_pictures

NAN, INF = float("nan"), float("inf")


def test_broken_rows_come_first_then_numbers_that_are_not_finite_then_the_largest() -> None:
    measures = torch.tensor([1.0, 3.0, NAN, 2.0, INF, 2.0])
    broken = torch.tensor([False, False, False, True, False, False])
    assert ranked(measures, broken, torch.tensor([0.0, 0, 1, 0, 2, 5])) == [3, 4, 2, 1, 5, 0]
    assert ranked(torch.zeros(3), torch.zeros(3, dtype=torch.bool), torch.zeros(3)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "index", "file"),
    [
        ("fashion_mnist_10k/train[17]", 17, "17"),
        ("/data/train/n01440764/n01440764_10026.JPEG", 3, "n01440764-n01440764_10026"),
        ("a/b c/d:é?.png", 4, "b_c-d"),
        ("..", 5, "5"),
        (f"x/{'y' * 300}.png", 6, "y" * 60),
    ],
)
def test_a_picture_is_called_after_its_image(name: str, index: int, file: str) -> None:
    assert file_name(name, index) == file


def test_views_stand_side_by_side_as_they_are(tmp_path: Path) -> None:
    large = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).view(2, 4, 4, 3)
    small = torch.full((2, 2, 2, 3), 7, dtype=torch.uint8)
    seen = SeenImage(rank=1, row=1, index=0, name="x", label=-1, measure=1.0, broken=False, file="1-x.png")
    write_pictures(tmp_path / "images", [seen], [large, small])
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["1-x.png"]
    pixels = np.asarray(Image.open(tmp_path / "images" / "1-x.png"))
    assert pixels.shape == (4, 4 + GAP + 2, 3)
    assert np.array_equal(pixels[:, :4], large[1].numpy())
    assert (pixels[:2, 4 + GAP :] == 7).all()
    assert (pixels[2:, 4 + GAP :] == 255).all()
