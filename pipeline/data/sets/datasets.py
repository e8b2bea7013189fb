"""The data sets that a configuration can name, behind one small interface: pixels, image, label, name.

Whatever can be read without torch is, so that a configuration can be checked against the data at once;
`preflight` finds what is missing before any process starts.
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
from pipeline.data.sets.files import FileImages
from pipeline.data.sets.image_folder import FolderImages, ImageFolder
from pipeline.data.sets.memory import check_memory
from pipeline.data.sets.mnist_family import IDX_SETS, idx_folder, missing_idx, read_idx_set
from pipeline.data.sets.packed import PackedImages, open_packed
from pipeline.data.sets.shared import open_shared
from pipeline.data.sets.torchvision_sets import TORCHVISION_SETS, check_part, check_places, downloaded, open_torchvision
from pipeline.data.sets.unreadable import check_files, named, unreadable_of_sample
from pipeline.errors import ConfigError, UserError

Split = Literal["train", "test"]
UNLABELED = "unlabeled"
"""`data.split` of an image folder: all images below it, whatever its folders are called, without labels."""


class ImageDataset(Protocol):
    """Images with labels."""

    num_classes: int
    """0 if the images, or some of them, have no labels."""
    labels: NDArray[np.int64]
    """`[N]`; -1 where nothing is known."""

    def __len__(self) -> int: ...

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """`[H, W]` gray or `[H, W, 3]` RGB, contiguous; not to be written to.

        Raises `UserError` if the image cannot be read or decoded.
        """
        ...

    def expect(self, indices: Sequence[int]) -> None:
        """`pixels` of these images will be asked for soon: a hint, which cannot fail."""
        ...

    def image(self, index: int) -> Image.Image:
        """The same pixels, mode L or RGB."""
        ...

    def label(self, index: int) -> int:
        """Its class, counted from 0; -1 if it has none."""
        ...

    def name_of(self, index: int) -> str:
        """What to call the image in a message: its path, or `fashion_mnist_10k/train[17]`."""
        ...


def open_dataset(data: DataConfig, split: Split, shared: int | None = None) -> ImageDataset:
    """Open the training or the test set.

    Args:
        data: which one.
        split: the part.
        shared: descriptor of what `pipeline.data.sets.shared.share` made of it; then no folder is looked at.

    Raises:
        ConfigError: `data.root` is needed and missing, or `data.split` names no part.
        UserError: the files are not there, or damaged.
    """
    if shared is not None:
        return open_shared(shared)
    if data.name == "fashion_mnist_10k":
        check_part(data.name, data.split, {})
        return read_idx_set(files("pipeline") / "data" / "fashion_mnist_10k", data.name, split)
    if data.name in IDX_SETS:
        return read_idx_set(_idx_folder(data), data.name, split, _idx_part(data))
    root = _root(data)
    if data.name in FOLDERS:
        folder = _image_folder(data, root)
        return folder.train if split == "train" else folder.test
    if data.name == "packed":
        return _open_packed(data, root, split)
    return open_torchvision(data.name, root, split, data.split, data.download)


class Splits:
    """The training and the test set of a configuration, for who asks several questions of them: each is opened once.

    Both raise as `open_dataset` when they are first asked for.

    Args:
        data: which data set.
    """

    def __init__(self, data: DataConfig) -> None:
        self.data = data

    @cached_property
    def train(self) -> ImageDataset:
        """What is trained on."""
        return self._folder.train if self.data.name in FOLDERS else open_dataset(self.data, "train")

    @cached_property
    def test(self) -> ImageDataset:
        """What is tested on."""
        return self._folder.test if self.data.name in FOLDERS else open_dataset(self.data, "test")

    @cached_property
    def _folder(self) -> ImageFolder:
        return _image_folder(self.data, _root(self.data))


def open_labelled(data: DataConfig, split: Split) -> ImageDataset:
    """Open what a classifier can be fitted on: the part with labels, where the run trains on one without.

    Raises:
        ConfigError, UserError: as `open_dataset`; also if the images have no labels.
    """
    known = TORCHVISION_SETS.get(data.name)
    found = open_dataset(data.model_copy(update={"split": None}) if known else data, split)
    if not found.num_classes:
        raise UserError(f"the images of {data.name} have no labels, and a classifier needs them")
    return found


def preflight(splits: Splits, notes: list[str] | None = None, broken: list[str] | None = None) -> int:
    """Check, without torch, that the training set is there and readable; return the number of its images.

    Image files are checked by sample, unless others may stand in for them: the headers of up to 10,000, the whole of
    up to 256. Of sets that torchvision reads it is checked that their files are there; their number of images is the
    published one.

    Args:
        splits: of the data set.
        notes: gets a sentence for what is left out.
        broken: gets what is wrong with each file of the sample that another one stands in for; None does not look.

    Raises:
        ConfigError: `data.root` is needed and missing, or the batches do not fit the data set.
        UserError: the files are not there, or damaged.
    """
    data = splits.data
    if data.name in TORCHVISION_SETS:
        count = _preflight_torchvision(data, _root(data))
    elif data.name in IDX_SETS and data.download and idx_folder(data.name, _given(data), _idx_part(data)) is None:
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
    """Classes of the training set, 0 if it has no labels, without opening more of it than their names."""
    data = splits.data
    if data.name in TORCHVISION_SETS:
        return 0 if UNLABELED in (data.split or "") else TORCHVISION_SETS[data.name].classes
    if data.name in IDX_SETS:
        return IDX_SETS[data.name].classes[_idx_part(data)]
    return 10 if data.name == "fashion_mnist_10k" else splits.train.num_classes


def preflight_test(splits: Splits, notes: list[str] | None = None) -> int | None:
    """Images of the test set, whose classes must be those of the training set; None if torchvision is to read them.

    Args:
        splits: of the data set.
        notes: gets a sentence about files that will be left out; None counts them and looks at none.

    Raises:
        UserError: there are none, they do not fit, or one of the same sample as in `preflight` cannot be decoded.
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
        notes.append(f"{len(broken)} of {len(images)} test images will be left out: {named(broken)}")
    return len(images) - len(broken)


def _given(data: DataConfig) -> Path | None:
    return None if data.root is None else Path(data.root).expanduser()


def _root(data: DataConfig) -> Path:
    root = _given(data)
    if root is not None:
        return root
    known = TORCHVISION_SETS.get(data.name)
    if data.name in IDX_SETS or (known is not None and known.downloads):
        raise ConfigError(
            "data.root",
            f"{data.name} needs the folder it lies in, and none is given",
            "Set data.root=FOLDER; with data.download=true torchvision puts the data set there",
        )
    raise ConfigError("data.root", f"{data.name} needs a folder, and none is given", "Set data.root=FOLDER")


def _image_folder(data: DataConfig, root: Path) -> ImageFolder:
    check_part(data.name, data.split, {UNLABELED: 0})
    return ImageFolder(root, data.layout, data.split == UNLABELED)


def _open_packed(data: DataConfig, root: Path, split: Split) -> PackedImages:
    check_part(data.name, data.split, {})
    return open_packed(root, split)


def _idx_part(data: DataConfig) -> str:
    known = IDX_SETS[data.name]
    check_part(data.name, data.split, known.published)
    return known.part(data.split)


def _idx_folder(data: DataConfig) -> Path:
    part = _idx_part(data)
    folder = idx_folder(data.name, _given(data), part)
    if folder is not None:
        return folder
    root = _root(data)
    if data.download:
        from torchvision import datasets

        kind = getattr(datasets, IDX_SETS[data.name].torchvision)
        downloaded(lambda: kind(str(root), download=True, **({"split": part} if part else {})), root)
        folder = idx_folder(data.name, root, part)
    if folder is None:
        raise missing_idx(data.name, root, part)
    return folder


def _preflight_torchvision(data: DataConfig, root: Path) -> int:
    known = TORCHVISION_SETS[data.name]
    check_part(data.name, data.split, known.parts)
    part = known.part("train", data.split)
    assert part is not None, "every data set has a training part"
    if not (data.download and known.downloads):
        check_places(data.name, root, part)
    return known.parts[part]
