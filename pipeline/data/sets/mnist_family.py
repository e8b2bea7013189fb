"""MNIST and the data sets in its format: the folders and names of their files.

They are read here and not by torchvision, which needs torch and prefers its own caches to the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.sets.arrays import ArrayImages
from pipeline.data.sets.idx import find_idx, read_pair
from pipeline.errors import UserError


@dataclass(frozen=True)
class IdxSet:
    """One data set of the family.

    Args:
        torchvision: the class that can download it.
        published: number of training images, by part; the first part is the default, "" where there are no parts.
        classes: likewise.
        system_folder: folder of the operating system's package of the data set; "" if there is none.
    """

    torchvision: str
    published: Mapping[str, int]
    classes: Mapping[str, int]
    system_folder: str = ""

    def part(self, split: str | None) -> str:
        """The part that `data.split` asks for."""
        return split if split is not None else next(iter(self.published))


_ONE = {"": 10}
IDX_SETS = {
    "mnist": IdxSet("MNIST", {"": 60_000}, _ONE),
    "fashion_mnist": IdxSet("FashionMNIST", {"": 60_000}, _ONE, "/usr/share/datasets/fashion-mnist"),
    "kmnist": IdxSet("KMNIST", {"": 60_000}, _ONE),
    "emnist": IdxSet(
        "EMNIST",
        {"balanced": 112_800, "byclass": 697_932, "bymerge": 697_932, "letters": 124_800, "digits": 240_000,
         "mnist": 60_000},
        {"balanced": 47, "byclass": 62, "bymerge": 47, "letters": 26, "digits": 10, "mnist": 10},
    ),
}  # fmt: skip
TEST_PREFIX = {"train": "train", "test": "t10k"}


def read_idx_set(folder: Any, name: str, split: str, part: str = "") -> ArrayImages:
    """Read one split of a data set from `folder` (a `Path` or a folder inside a package).

    Raises:
        UserError: a file is missing or damaged.
    """
    prefix = f"emnist-{part}-{split}" if part else TEST_PREFIX[split]
    paths = [folder / f"{prefix}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    if isinstance(folder, Path):  # outside of the package the files may have been unpacked
        paths = [find_idx(folder, path.name.removesuffix(".gz")) or path for path in paths]
    pixels, labels = read_pair(*paths)
    if part == "letters":  # these are counted from 1
        labels = labels - 1
    classes = IDX_SETS[name].classes[part] if name in IDX_SETS else 10
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(
            f"'{paths[1]}' holds labels from {labels.min()} to {labels.max()}, and {name} has {classes} classes. "
            "Fetch the file again from where the data set is published"
        )
    return ArrayImages(pixels, labels, classes, f"{name}/{split}")


def idx_folder(name: str, root: Path | None, part: str) -> Path | None:
    """The folder with the training images: `root`, torchvision's folder below it, or the system's; None if none has."""
    dataset = IDX_SETS[name]
    stem = f"emnist-{part}-train-images-idx3-ubyte" if part else "train-images-idx3-ubyte"
    places = [root, root / dataset.torchvision / "raw"] if root is not None else []
    places += [Path(dataset.system_folder)] if dataset.system_folder and root is None else []
    return next((place for place in places if find_idx(place, stem)), None)


def missing_idx(name: str, root: Path, part: str) -> UserError:
    """The error for a folder that holds no such data set."""
    dataset = IDX_SETS[name]
    stem = f"emnist-{part}-train-images-idx3-ubyte.gz" if part else "train-images-idx3-ubyte.gz"
    installed = (
        f", or install the package dataset-{name.replace('_', '-')} and leave data.root out"
        if dataset.system_folder
        else ""
    )
    return UserError(
        f"data.root '{root}' holds no {name}: neither '{stem}' nor '{dataset.torchvision}/raw/{stem}'. "
        f"Point data.root at the files or set data.download=true{installed}"
    )
