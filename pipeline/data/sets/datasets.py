"""The data sets that a configuration can name, behind one small interface: pixels, image, label, name.

Data sets are read without torch wherever that is possible, so that a configuration is checked against the data fast.
`preflight` finds missing and damaged files before any process starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import DataConfig
from pipeline.config.data import FOLDERS
from pipeline.data.sampler import check_batch_size
from pipeline.data.sets.custom import open_custom
from pipeline.data.sets.files import FileImages
from pipeline.data.sets.image_folder import FolderImages, ImageFolder
from pipeline.data.sets.memory import check_memory
from pipeline.data.sets.mnist_family import IDX_SETS, idx_folder, missing_idx, read_idx_set
from pipeline.data.sets.packed import open_packed
from pipeline.data.sets.shared import open_shared
from pipeline.data.sets.torchvision_sets import (
    TORCHVISION_SETS,
    call_torchvision,
    check_part,
    check_places,
    open_torchvision,
)
from pipeline.data.sets.unreadable import check_files, summarized, unreadable_of_sample
from pipeline.errors import ConfigError, UserError

Split = Literal["train", "test"]
UNLABELED = "unlabeled"
"""`data.split` of an image folder: all images below it, whatever its folders are called, without labels."""


class ImageDataset(Protocol):
    """Images with labels."""

    num_classes: int
    """0 if the images, or some of them, have no labels."""
    labels: NDArray[np.int64]
    """`[N]`; -1 for unlabelled images."""

    def __len__(self) -> int: ...

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """`[H, W]` gray or `[H, W, 3]` RGB, contiguous; not to be written to.

        Raises `UserError` if the image cannot be read or decoded.
        """
        ...

    def prefetch(self, indices: Sequence[int]) -> None:
        """Announce that `pixels` of these images will be called soon: a hint, which never raises."""
        ...

    def image(self, index: int) -> Image.Image:
        """The same pixels, mode L or RGB."""
        ...

    def label(self, index: int) -> int:
        """Its class, counted from 0; -1 if it has none."""
        ...

    def name_of(self, index: int) -> str:
        """The name of the image in messages: its path, or `fashion_mnist_10k/train[17]`."""
        ...


class Splits:
    """The training and the test set of a configuration; each is opened once, on first access.

    Args:
        data: section `data` of the configuration.

    Raises (on access to `train` or `test`):
        ConfigError: `data.root` is needed and missing, or `data.split` names no part.
        UserError: files are missing or damaged.
    """

    def __init__(self, data: DataConfig) -> None:
        self.data = data

    @cached_property
    def train(self) -> ImageDataset:
        """The training set."""
        return self._folder.train if self.data.name in FOLDERS else self._open("train")

    @cached_property
    def test(self) -> ImageDataset:
        """The test set."""
        return self._folder.test if self.data.name in FOLDERS else self._open("test")

    @cached_property
    def _folder(self) -> ImageFolder:
        data, root = self.data, _root(self.data)
        check_part(data.name, data.split, {UNLABELED: 0})
        return ImageFolder(root, data.layout, data.split == UNLABELED)

    def _open(self, split: Split) -> ImageDataset:
        data = self.data
        if ":" in data.name:
            return open_custom(data, split)
        if data.name == "fashion_mnist_10k":
            check_part(data.name, data.split, {})
            return read_idx_set(files("pipeline") / "data" / "fashion_mnist_10k", data.name, split)
        if data.name in IDX_SETS:
            return read_idx_set(_idx_folder(data), data.name, split, _idx_part(data))
        if data.name == "packed":
            root = _root(data)
            check_part(data.name, data.split, {})
            return open_packed(root, split)
        return open_torchvision(data.name, _root(data), split, data.split, data.download)


def open_dataset(data: DataConfig, split: Split, shared: int | None = None) -> ImageDataset:
    """Open the training or the test set; raises as `Splits`.

    Args:
        data: section `data` of the configuration.
        split: "train" or "test".
        shared: descriptor from `pipeline.data.sets.shared.share`; then no folder is read.
    """
    if shared is not None:
        return open_shared(shared)
    return Splits(data).train if split == "train" else Splits(data).test


def open_labelled(data: DataConfig, split: Split) -> ImageDataset:
    """Open the labelled part of a data set, for a classifier, also where the run trains on the unlabelled part.

    Raises:
        ConfigError, UserError: as `open_dataset`; `UserError` also if the images have no labels.
    """
    is_torchvision = TORCHVISION_SETS.get(data.name)
    images = open_dataset(data.model_copy(update={"split": None}) if is_torchvision else data, split)
    if not images.num_classes:
        raise UserError(f"the images of {data.name} have no labels, and a classifier needs them")
    return images


def preflight(splits: Splits, notes: list[str] | None = None, broken: list[str] | None = None) -> int:
    """Check, without torch, that the training set exists and is readable; return the number of its images.

    A sample of the image files is checked, unless others may replace them: headers of up to 10,000, pixels of up to
    256. For data sets that torchvision reads, only the existence of the files is checked, and the number of images is
    the published one.

    Args:
        splits: of the data set.
        notes: collects a sentence for each kind of skipped file.
        broken: collects the error messages of files in the sample that others replace; None skips this check.

    Raises:
        ConfigError: `data.root` is needed and missing, or the batches do not fit the data set.
        UserError: files are missing or damaged.
    """
    data = splits.data
    if data.name in TORCHVISION_SETS:
        count = _preflight_torchvision(data, _root(data))
    elif (
        data.name in IDX_SETS and data.download and idx_folder(data.name, _root_if_given(data), _idx_part(data)) is None
    ):
        _root(data)
        count = IDX_SETS[data.name].published[_idx_part(data)]
    else:
        images = splits.train
        count = len(images)
        if isinstance(images, FolderImages) and notes is not None:
            notes += images.notes
        if isinstance(images, FolderImages) and data.on_error == "fail":
            check_files(images.files)
        elif isinstance(images, FolderImages) and broken is not None:
            broken += unreadable_of_sample(images)
        if data.in_memory:
            check_memory(images)
    check_batch_size(count, data.batch_size, data.drop_last)
    return count


def count_classes(splits: Splits) -> int:
    """Number of classes of the training set, 0 without labels; reads no more than the names of the classes."""
    data = splits.data
    if data.name in TORCHVISION_SETS:
        return 0 if UNLABELED in (data.split or "") else TORCHVISION_SETS[data.name].classes
    if data.name in IDX_SETS:
        return IDX_SETS[data.name].classes[_idx_part(data)]
    return 10 if data.name == "fashion_mnist_10k" else splits.train.num_classes


def preflight_test(splits: Splits, notes: list[str] | None = None) -> int | None:
    """Number of test images, whose classes must be those of the training set; None if torchvision reads them.

    Args:
        splits: of the data set.
        notes: collects a sentence about files that will be skipped; None only counts the images.

    Raises:
        UserError: there are no test images, their classes differ, or one of the sample cannot be decoded.
    """
    data = splits.data
    if data.name in TORCHVISION_SETS or data.download:
        return None
    images = splits.test
    if notes is None or not isinstance(images, FileImages):
        return len(images)
    if data.on_error == "fail":
        try:
            check_files(images.files)
        except UserError as error:
            raise UserError(f"{error}, or leave such images out with data.on_error=skip") from None
        return len(images)
    broken = unreadable_of_sample(images)
    if broken:
        notes.append(f"{len(broken)} of {len(images)} test images will be left out: {summarized(broken)}")
    return len(images) - len(broken)


def _root_if_given(data: DataConfig) -> Path | None:
    return None if data.root is None else Path(data.root).expanduser()


def _root(data: DataConfig) -> Path:
    root = _root_if_given(data)
    if root is not None:
        return root
    dataset = TORCHVISION_SETS.get(data.name)
    if data.name in IDX_SETS or (dataset is not None and dataset.downloads):
        raise ConfigError(
            "data.root",
            f"{data.name} needs the folder that contains it, and none is given",
            "Set data.root=FOLDER; with data.download=true torchvision puts the data set there",
        )
    raise ConfigError("data.root", f"{data.name} needs a folder, and none is given", "Set data.root=FOLDER")


def _idx_part(data: DataConfig) -> str:
    known = IDX_SETS[data.name]
    check_part(data.name, data.split, known.published)
    return known.part(data.split)


def _idx_folder(data: DataConfig) -> Path:
    part = _idx_part(data)
    folder = idx_folder(data.name, _root_if_given(data), part)
    if folder is not None:
        return folder
    root = _root(data)
    if data.download:
        from torchvision import datasets

        kind = getattr(datasets, IDX_SETS[data.name].torchvision)
        call_torchvision(lambda: kind(str(root), download=True, **({"split": part} if part else {})), root)
        folder = idx_folder(data.name, root, part)
    if folder is None:
        raise missing_idx(data.name, root, part)
    return folder


def _preflight_torchvision(data: DataConfig, root: Path) -> int:
    dataset = TORCHVISION_SETS[data.name]
    check_part(data.name, data.split, dataset.parts)
    part = dataset.part("train", data.split)
    assert part is not None, "every data set has a training part"
    if not (data.download and dataset.downloads):
        check_places(data.name, root, part)
    return dataset.parts[part]
