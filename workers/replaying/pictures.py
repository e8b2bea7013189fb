"""The images of a batch as they were seen, those that matter most first, with the names of the images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.data.sets.datasets import ImageDataset
from pipeline.ordinary_files import make_folder

GAP = 2
"""White pixels between two views."""
NAME_LETTERS = 60


@dataclass(frozen=True, kw_only=True)
class SeenImage:
    """One image of the batch.

    Args:
        rank: from 1; the first has the largest `measure`.
        row: in the batch, from 0.
        index: in the data set.
        name: its path, or the data set and its number.
        label: its class; -1 for none.
        measure: see `ranked`.
        broken: whether it gave the first number that is not finite.
        file: name of its picture; None where none is written.
    """

    rank: int
    row: int
    index: int
    name: str
    label: int
    measure: float
    broken: bool
    file: str | None


def ranked(measures: Tensor, broken: Tensor, ties: Tensor) -> list[int]:
    """Rows of the batch: those that are broken, then by `measures`, then by `ties`, the largest first.

    Args:
        measures: one number a row, `[B]`; one that is not finite counts as larger than all that are.
        broken: whether the row gave the first number that is not finite, `[B]`.
        ties: decides among equal measures, `[B]`.
    """
    first, second = (numbers.double().nan_to_num(torch.inf, torch.inf).tolist() for numbers in (measures, ties))
    wrong = broken.tolist()
    return sorted(range(len(measures)), key=lambda row: (not wrong[row], -first[row], -second[row], row))


def seen_images(
    images: ImageDataset, samples: NDArray[np.int64], order: Sequence[int], measures: Tensor, broken: Tensor
) -> list[SeenImage]:
    """The images of a batch in the order of their rows that `ranked` gave, from the same tensors.

    Args:
        images: the data set.
        samples: numbers of the images in it, `[B]`.
        order, measures, broken: see `ranked`.
    """
    digits, found = len(str(len(order))), []
    for rank, row in enumerate(order, 1):
        index = int(samples[row])
        name = images.name_of(index)
        file = f"{rank:0{digits}d}-{file_name(name, index)}.png"
        seen = SeenImage(
            rank=rank,
            row=row,
            index=index,
            name=name,
            label=images.label(index),
            measure=float(measures[row]),
            broken=bool(broken[row]),
            file=file,
        )
        found.append(seen)
    return found


def with_pictures(seen: Sequence[SeenImage], count: int) -> tuple[SeenImage, ...]:
    """The same images, of which the first `count` have a picture."""
    return tuple(image if image.rank <= count else replace(image, file=None) for image in seen)


def file_name(name: str, index: int) -> str:
    """What a picture is called after its image: the last two parts of a path, or the number in the data set."""
    if name.endswith(f"[{index}]"):
        return str(index)
    parts = "-".join(Path(name).with_suffix("").parts[-2:])
    return re.sub(r"[^\w.-]+", "_", parts, flags=re.ASCII).strip("._")[-NAME_LETTERS:] or str(index)


def write_pictures(folder: Path, seen: Sequence[SeenImage], views: Sequence[Tensor]) -> None:
    """One PNG for each image that has a name for it: its views from left to right, in their own size.

    Args:
        folder: is made.
        seen: which row has which name.
        views: uint8 `[B, S, S, 3]` each.

    Raises:
        OSError: a picture cannot be written.
    """
    make_folder(folder, folder.parent)
    pixels = [view.cpu().numpy() for view in views]
    height, width = max(v.shape[1] for v in pixels), sum(v.shape[2] for v in pixels) + GAP * (len(pixels) - 1)
    for image in seen:
        if image.file is None:
            continue
        canvas = np.full((height, width, 3), 255, np.uint8)
        left = 0
        for view in pixels:
            side = view.shape[2]
            canvas[: view.shape[1], left : left + side] = view[image.row]
            left += side + GAP
        Image.fromarray(canvas).save(folder / image.file)
