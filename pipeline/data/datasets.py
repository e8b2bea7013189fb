"""The data sets that a configuration can name, behind one small interface: image, label, name.

Everything but CIFAR is read without torch, so that a configuration can be checked against the data
at once; `preflight` finds what is missing before any process starts.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import Data
from pipeline.data.idx import find_idx, read_pair
from pipeline.data.image_folder import FolderImages, check_files, split_folder
from pipeline.data.sampler import check_batch_size
from pipeline.errors import ConfigError, UserError

Split = Literal["train", "test"]
IDX_PREFIX = {"train": "train", "test": "t10k"}
CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}
CIFAR_FILES = {
    "cifar10": ("cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6))),
    "cifar100": ("cifar-100-python", ("train",)),
}
DOWNLOADABLE = {"fashion_mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000}
"""What torchvision can download, and the number of its training images."""


class ImageDataset(Protocol):
    """Images with labels."""

    num_classes: int
    labels: NDArray[np.int64]
    """`[N]`."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """The image, mode L or RGB; raises `UserError` if it cannot be decoded."""
        ...

    def label(self, index: int) -> int:
        """Its class, counted from 0."""
        ...

    def name_of(self, index: int) -> str:
        """What to call the image in a message: its path, or `fashion_mnist_10k/train[17]`."""
        ...


class ArrayImages:
    """A data set that fits in memory.

    Args:
        pixels: uint8, `[N, H, W]` gray or `[N, H, W, 3]`.
        labels: `[N]`.
        num_classes: how many classes there are.
        name: `NAME/SPLIT`.
    """

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], num_classes: int, name: str) -> None:
        self.pixels, self.labels, self.num_classes, self.name = pixels, labels, num_classes, name

    def __len__(self) -> int:
        return len(self.pixels)

    def image(self, index: int) -> Image.Image:
        """The image, mode L or RGB."""
        return Image.fromarray(self.pixels[index])

    def label(self, index: int) -> int:
        """Its class, counted from 0."""
        return int(self.labels[index])

    def name_of(self, index: int) -> str:
        """`NAME/SPLIT[INDEX]`."""
        return f"{self.name}[{index}]"


def open_dataset(data: Data, split: Split) -> ImageDataset:
    """Open the training or the test set.

    Raises:
        ConfigError: `data.root` is needed and missing.
        UserError: the files are not there, or damaged.
    """
    if data.name == "fashion_mnist_10k":
        return _open_idx(files("pipeline") / "data" / "fashion_mnist_10k", split, data.name)
    root = _root(data)
    if data.name == "image_folder":
        train = split_folder(root, "train")
        return FolderImages(train) if split == "train" else FolderImages(split_folder(root, split), like=train)
    if data.name == "fashion_mnist":
        return _open_idx(_fashion_mnist_folder(root, data.download), split, data.name)
    return _open_cifar(data, root, split)


def preflight(data: Data) -> int:
    """Check, without torch, that the training set is there and readable; return the number of its images.

    Image files are checked by sample: the headers of up to 10,000, the whole of up to 256.

    Raises:
        ConfigError: `data.root` is needed and missing, or the batches do not fit the data set.
        UserError: the files are not there, or damaged.
    """
    if data.name == "image_folder":
        folder = FolderImages(split_folder(_root(data), "train"))
        check_files(folder.files)
        count = len(folder)
    elif data.name in CIFAR_FILES:
        count = _preflight_cifar(data, _root(data))
    elif data.name == "fashion_mnist" and data.download and _idx_folder(_root(data)) is None:
        count = DOWNLOADABLE[data.name]
    else:
        count = len(open_dataset(data, "train"))
    check_batch_size(count, data.batch_size, data.drop_last)
    return count


def count_classes(data: Data) -> int:
    """Classes of the training set, without opening more of it than their names."""
    if data.name == "image_folder":
        return FolderImages(split_folder(_root(data), "train")).num_classes
    return CIFAR_CLASSES.get(data.name, 10)


def _root(data: Data) -> Path:
    if data.root is not None:
        return Path(data.root).expanduser()
    if data.name in DOWNLOADABLE:
        raise ConfigError(
            "data.root",
            f"{data.name} needs the folder it lies in, and none is given",
            "Set data.root=FOLDER; with data.download=true torchvision puts the data set there",
        )
    raise ConfigError("data.root", f"{data.name} needs a folder, and none is given", "Set data.root=FOLDER")


def _open_idx(folder: Any, split: Split, name: str) -> ArrayImages:
    prefix = IDX_PREFIX[split]
    paths = [folder / f"{prefix}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    if isinstance(folder, Path):  # outside of the package the files may have been unpacked
        paths = [find_idx(folder, path.name.removesuffix(".gz")) or path for path in paths]
    pixels, labels = read_pair(*paths)
    return ArrayImages(pixels, labels, num_classes=10, name=f"{name}/{split}")


def _idx_folder(root: Path) -> Path | None:
    """The IDX files lie in `root` itself, or where torchvision puts them; None if in neither."""
    stem = "train-images-idx3-ubyte"
    return next((f for f in (root, root / "FashionMNIST" / "raw") if find_idx(f, stem)), None)


def _fashion_mnist_folder(root: Path, download: bool) -> Path:
    folder = _idx_folder(root)
    if folder is None and download:
        from torchvision.datasets import FashionMNIST

        _downloaded(lambda: FashionMNIST(str(root), download=True), root)
        folder = _idx_folder(root)
    if folder is None:
        raise UserError(
            f"data.root '{root}' holds no Fashion-MNIST: neither 'train-images-idx3-ubyte.gz' nor 'FashionMNIST/raw'. "
            "Point data.root at the files or set data.download=true"
        )
    return folder


def _open_cifar(data: Data, root: Path, split: Split) -> ArrayImages:
    if not data.download:
        _preflight_cifar(data, root)
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = CIFAR10 if data.name == "cifar10" else CIFAR100
    # The files are pickles; torchvision compares their MD5 digests with the published ones before it opens them.
    found = _downloaded(lambda: kind(str(root), train=split == "train", download=data.download), root)
    labels = np.asarray(found.targets, dtype=np.int64)
    return ArrayImages(np.asarray(found.data), labels, CIFAR_CLASSES[data.name], f"{data.name}/{split}")


def _preflight_cifar(data: Data, root: Path) -> int:
    folder, names = CIFAR_FILES[data.name]
    missing = [root / folder / name for name in names if not (root / folder / name).is_file()]
    if missing and not data.download:
        raise UserError(
            f"data.root '{root}' holds no {data.name}: '{missing[0]}' is missing. "
            "Point data.root at the folder that torchvision filled, or set data.download=true"
        )
    return DOWNLOADABLE[data.name]


def _downloaded(load: Callable[[], Any], root: Path) -> Any:
    """torchvision reports a failed download and a wrong digest as plain exceptions; users get one sentence."""
    try:
        return load()
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"torchvision could not read or download the data set in '{root}' ({reason}). "
            "Check the network and the folder, or put the files there yourself"
        ) from None
