"""Data sets that torchvision reads: its classes, their arguments, and how the result is read.

torchvision downloads, compares MD5 digests and parses each format. Only the paths and labels (or the array of pixels)
of the opened data set are used, so that every file is decoded here, in the same way for all data sets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from pipeline.data.sets.arrays import ArrayImages
from pipeline.data.sets.files import FileImages, FileNames
from pipeline.errors import ConfigError, UserError, reason_of

ReaderName = Literal["loader", "arrays", "samples", "pets", "caltech101", "caltech256", "tensors"]


@dataclass(frozen=True)
class TorchvisionSet:
    """How one data set is opened.

    Args:
        kind: torchvision's class.
        classes: number of classes.
        parts: those that can be trained on, each with the published number of its images; the first is the default.
        test: the part that is tested on; None if there is none.
        places: paths below `data.root` that must exist before torchvision is called; `{part}` is filled in.
        keyword: the argument that takes the part; "train" takes whether it is the training part, "" none.
        reader: which attributes of the opened data set hold the paths or pixels and the labels.
        more: further arguments of the class.
        downloads: whether torchvision can download it.
    """

    kind: str
    classes: int
    parts: Mapping[str, int]
    test: str | None
    places: tuple[str, ...]
    keyword: str = "split"
    reader: ReaderName = "loader"
    more: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    downloads: bool = True

    def part(self, split: str, asked: str | None) -> str | None:
        """The part of a split ("train" or "test"), under torchvision's name; `asked` is `data.split`."""
        return self.test if split == "test" else asked if asked is not None else next(iter(self.parts))

    def arguments(self, root: str, part: str, download: bool) -> dict[str, Any]:
        """Keyword arguments for torchvision's class."""
        value = {"": {}, "train": {"train": part == "train"}}.get(self.keyword, {self.keyword: part})
        loader = {"loader": os.fspath} if self.reader == "loader" else {}  # returns the path instead of an image
        return {"root": root, **value, **loader, **self.more} | ({"download": download} if self.downloads else {})


Set = TorchvisionSet
_CIFAR10 = tuple(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6))
_PLACES = {"train-standard": 1_803_460, "train-challenge": 8_026_628, "val": 36_500}
TORCHVISION_SETS = {
    "cifar10": Set("CIFAR10", 10, {"train": 50_000}, "test", _CIFAR10, "train", "arrays"),
    "cifar100": Set("CIFAR100", 100, {"train": 50_000}, "test", ("cifar-100-python/train",), "train", "arrays"),
    "qmnist": Set("QMNIST", 10, {"train": 60_000}, "test", ("QMNIST/raw",), "train", "arrays"),
    "usps": Set("USPS", 10, {"train": 7_291}, "test", ("usps.bz2",), "train", "arrays"),
    "semeion": Set("SEMEION", 10, {"": 1_593}, None, ("semeion.data",), "", "arrays"),
    "svhn": Set("SVHN", 10, {"train": 73_257, "extra": 531_131}, "test", ("{part}_32x32.mat",), reader="arrays"),
    "stl10": Set(
        "STL10", 10, {"train": 5_000, "unlabeled": 100_000, "train+unlabeled": 105_000}, "test",
        ("stl10_binary/train_X.bin", "stl10_binary/unlabeled_X.bin"), reader="arrays",
    ),
    "fer2013": Set("FER2013", 7, {"train": 28_709}, "test", ("fer2013",), reader="tensors", downloads=False),
    "eurosat": Set("EuroSAT", 10, {"": 27_000}, None, ("eurosat/2750",), ""),
    "gtsrb": Set("GTSRB", 43, {"train": 26_640}, "test", ("gtsrb/GTSRB",), reader="samples"),
    "caltech101": Set(
        "Caltech101", 101, {"": 8_677}, None, ("caltech101/101_ObjectCategories",), "", reader="caltech101"
    ),
    "caltech256": Set(
        "Caltech256", 257, {"": 30_607}, None, ("caltech256/256_ObjectCategories",), "", reader="caltech256"
    ),
    "country211": Set("Country211", 211, {"train": 31_650, "valid": 10_550}, "test", ("country211/{part}",)),
    "dtd": Set("DTD", 47, {"train": 1_880, "val": 1_880}, "test", ("dtd/dtd/images",)),
    "fgvc_aircraft": Set(
        "FGVCAircraft", 100, {"trainval": 6_667, "train": 3_334, "val": 3_333}, "test", ("fgvc-aircraft-2013b/data",)
    ),
    "flowers102": Set("Flowers102", 102, {"train": 1_020, "val": 1_020}, "test", ("flowers-102/jpg",)),
    "food101": Set("Food101", 101, {"train": 75_750}, "test", ("food-101/images",)),
    "imagenette": Set("Imagenette", 10, {"train": 9_469}, "val", ("imagenette2/{part}",)),
    "oxford_iiit_pet": Set(
        "OxfordIIITPet", 37, {"trainval": 3_680}, "test", ("oxford-iiit-pet/images",), reader="pets"
    ),
    "places365": Set("Places365", 365, _PLACES, "val", ("categories_places365.txt",)),
    "places365_small": Set(
        "Places365", 365, _PLACES, "val", ("categories_places365.txt",), more=MappingProxyType({"small": True})
    ),
    "rendered_sst2": Set("RenderedSST2", 2, {"train": 6_920, "val": 872}, "test", ("rendered-sst2/train",)),
    "stanford_cars": Set(
        "StanfordCars", 196, {"train": 8_144}, "test", ("stanford_cars/devkit", "stanford_cars/cars_{part}"),
        downloads=False,
    ),
    "sun397": Set("SUN397", 397, {"": 108_754}, None, ("SUN397/ClassName.txt",), ""),
}  # fmt: skip


def open_torchvision(name: str, root: Path, split: str, asked: str | None, download: bool) -> ArrayImages | FileImages:
    """Open a data set through torchvision.

    Args:
        name: a key of `TORCHVISION_SETS`.
        root: as torchvision takes it.
        split: "train" or "test".
        asked: `data.split`.
        download: let torchvision fetch what is missing.

    Raises:
        ConfigError: it has no such part.
        UserError: it has no test images, its files are not there or damaged, or a package is missing.
    """
    dataset = TORCHVISION_SETS[name]
    check_part(name, asked, dataset.parts)
    part = dataset.part(split, asked)
    if part is None:
        raise UserError(f"{name} has no test images. Split it yourself and read it as image_folder")
    if not (download and dataset.downloads):
        check_places(name, root, part)
    from torchvision import datasets

    opened = call_torchvision(
        lambda: getattr(datasets, dataset.kind)(**dataset.arguments(str(root), part, download)), root
    )
    images = _READ[dataset.reader](opened, f"{name}/{split}", str(root))
    labels = images.labels
    if len(labels) and not -1 <= labels.min() <= labels.max() < dataset.classes:
        raise UserError(
            f"'{root}' holds labels from {labels.min()} to {labels.max()}, and {name} has {dataset.classes} classes. "
            "Fetch the data set again"
        )
    images.num_classes = 0 if len(labels) and labels.min() < 0 else dataset.classes
    return images


def check_part(name: str, asked: str | None, parts: Mapping[str, int]) -> None:
    """Raise `ConfigError` if `data.split` names no part of the data set that can be trained on."""
    allowed = [part for part in parts if part]
    if asked is None or asked in allowed:
        return
    if not allowed:
        raise ConfigError("data.split", f"{name} has one training set, not '{asked}'", "Leave it out")
    raise ConfigError("data.split", f"{name} has no training part '{asked}'", f"Allowed: {', '.join(allowed)}")


def check_places(name: str, root: Path, part: str) -> None:
    """Raise `UserError` if something that the data set needs is not below `root`."""
    dataset = TORCHVISION_SETS[name]
    places = [root / place.format(part=part) for place in dataset.places]
    missing = next((place for place in places if not place.exists()), None)
    if missing is None:
        return
    remedy = (
        "Point data.root at the folder that torchvision filled, or set data.download=true"
        if dataset.downloads
        else f"torchvision cannot download it: put it there as torchvision.datasets.{dataset.kind} describes"
    )
    raise UserError(f"data.root '{root}' holds no {name}: '{missing}' is missing. {remedy}")


def call_torchvision(load: Callable[[], Any], root: Path) -> Any:
    """Call `load`; a failed download, a wrong digest or a missing package becomes a `UserError` in one sentence."""
    try:
        return load()
    except ImportError as error:
        package = error.name or str(error)
        raise UserError(
            f"torchvision needs the package '{package}' to read the data set in '{root}'. Install it with pip"
        ) from None
    except (RuntimeError, OSError, ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"torchvision could not read or download the data set in '{root}' ({reason_of(error)}). "
            "Check the network and the folder, or put the files there yourself"
        ) from None


def _arrays(opened: Any, name: str, _root: str) -> ArrayImages:
    array = np.asarray(opened.data)
    labels = opened.targets if hasattr(opened, "targets") else opened.labels
    labels = np.asarray(labels, dtype=np.int64)
    if labels.ndim == 2:  # QMNIST has more columns than the digit
        labels = labels[:, 0]
    if array.ndim == 4 and array.shape[1] == 3 and array.shape[3] != 3:
        array = array.transpose(0, 2, 3, 1)
    return ArrayImages(array, labels, 0, name)


def _tensors(opened: Any, name: str, _root: str) -> ArrayImages:
    samples = getattr(opened, "_samples", None) or [opened[index] for index in range(len(opened))]
    pixels = np.stack([np.asarray(image) for image, _ in samples])
    labels = np.asarray([-1 if label is None else label for _, label in samples], np.int64)
    return ArrayImages(pixels, labels, 0, name)


def _loader(opened: Any, _name: str, root: str) -> FileImages:
    return _files([opened[index] for index in range(len(opened))], root)


def _samples(opened: Any, _name: str, root: str) -> FileImages:
    samples = getattr(opened, "_samples", None)
    if samples is None:  # every image is opened once to get its path
        return _loader(opened, _name, root)
    return _files(samples, root)


def _pets(opened: Any, _name: str, root: str) -> FileImages:
    return _files(list(zip(opened._images, opened._labels, strict=True)), root)


def _caltech(folder: str, file_name: str, opened: Any, _name: str, root: str) -> FileImages:
    """The files below `folder`; `file_name` is a format of the image's number `i` and of its class `y`, from 1."""
    parent, numbered = os.path.join(opened.root, folder), zip(opened.index, opened.y, strict=True)
    return _files(
        [(os.path.join(parent, opened.categories[y], file_name.format(i=i, y=y + 1)), y) for i, y in numbered], root
    )


def _files(samples: list[tuple[Any, int | None]], root: str) -> FileImages:
    """Sorted by path: some of torchvision's lists have the order in which the file system happens to list a folder."""
    ordered = sorted((os.path.relpath(path, root), -1 if label is None else int(label)) for path, label in samples)
    labels = np.asarray([label for _, label in ordered], np.int64)
    return FileImages(FileNames.of(root, (path for path, _ in ordered)), labels, ())


_READ: Mapping[ReaderName, Callable[[Any, str, str], ArrayImages | FileImages]] = {
    "loader": _loader,
    "arrays": _arrays,
    "tensors": _tensors,
    "samples": _samples,
    "pets": _pets,
    "caltech101": partial(_caltech, "101_ObjectCategories", "image_{i:04d}.jpg"),
    "caltech256": partial(_caltech, "256_ObjectCategories", "{y:03d}_{i:04d}.jpg"),
}
