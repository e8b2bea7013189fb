"""A folder of class folders of image files: what torchvision's `ImageFolder` reads, without torch.

`root/train/CLASS/...` is the training set and `root/val/CLASS/...` the test set; a root without `train` is
itself the training set. Classes are numbered in the order of their names. A folder without class folders is a
set without labels; with the part `unlabeled`, so is any folder, with all images below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.config.data import Layout
from pipeline.data.sets.files import FileImages, FileNames
from pipeline.data.sets.folder_walk import EXTENSIONS, Listing, has_image, images_below, list_folder
from pipeline.errors import ConfigError, UserError

PARTS = ("train", "val", "valid", "validation", "test", "testing", "unlabeled", "extra", "dev")
"""Names, in any case, of folders beside `train` that are parts of a data set and not classes."""


class FolderImages(FileImages):
    """Image files and their labels; files are opened on access.

    Args:
        listing: of the folder, which holds one folder per class, or images without class folders.
        like: of a folder whose classes this one must have too, so that the class numbers agree.
        unlabeled: take all images below the folder, and no folder as a class.

    Raises:
        UserError: the folder or a class folder has no images, or the classes differ.
    """

    def __init__(self, listing: Listing, like: Listing | None = None, unlabeled: bool = False) -> None:
        folder, left_out = listing.folder, listing.left_out.copy()
        classes = [] if unlabeled else _class_names(listing)
        if like is not None and not unlabeled:
            _check_same_classes(folder, classes, like.folder, _class_names(like))
        counts = []

        def names() -> Iterator[str]:
            for place in classes or ["."]:
                paths = images_below(listing, place, left_out)
                if not paths:
                    raise _no_images(folder, place if classes else None)
                counts.append(len(paths))
                yield from paths

        files = FileNames.of(str(folder), names())
        labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts) if classes else np.full(len(files), -1)
        super().__init__(files, labels, classes)
        if classes and (beside := [str(folder / name) for name in listing.files if (folder / name).is_file()]):
            left_out.by_reason["because they are in no class folder"] = beside
        self.notes = left_out.notes()


class ImageFolder:
    """The training and the test set of a folder; every folder is listed only once.

    Args:
        root: the folder.
        layout: `splits`: the parts are in `train` and `val`; `classes`: every folder is a class; `auto` decides.
        unlabeled: take all images of a part, and no folder as a class.

    Raises (on access to a part):
        UserError: the part does not exist, or as `FolderImages`.
        ConfigError: the folder can be read in two ways.
    """

    def __init__(self, root: Path, layout: Layout = "auto", unlabeled: bool = False) -> None:
        self._root, self._layout, self._unlabeled = root, layout, unlabeled
        self._listings: dict[Path, Listing] = {}

    @cached_property
    def train(self) -> FolderImages:
        """The training set."""
        return FolderImages(self._listing(self._train_folder()), unlabeled=self._unlabeled)

    @cached_property
    def test(self) -> FolderImages:
        """The test set; its classes must be those of the training set."""
        train = self.folder_of("train")
        return FolderImages(self._listing(self.folder_of("test")), self._listing(train), self._unlabeled)

    def folder_of(self, split: Literal["train", "test"]) -> Path:
        """The folder of a part."""
        root, layout = self._root, "splits" if self._unlabeled else self._layout
        if not root.is_dir():
            raise UserError(f"data.root '{root}' is not a folder. Give the folder that holds train/CLASS/IMAGE files")
        listing = self._listing(root)
        train, validation = (_named(listing, name) for name in ("train", "val"))
        if layout == "auto" and train is not None:
            _check_one_reading(listing, train)
        if split == "train":
            if layout != "classes" and validation is not None and train is None:
                raise UserError(
                    f"'{root}' has a folder '{validation.name}' but no 'train'. Put the training images in "
                    f"'{root / 'train'}', or set data.layout=classes if '{validation.name}' is a class"
                )
            if train is None and layout == "splits":
                raise UserError(f"'{root}' has no folder 'train' (data.layout=splits)")
            return root if train is None or layout == "classes" else train
        if validation is None or layout == "classes":
            raise UserError(
                f"'{root}' has no test images: there is no folder '{root / 'val'}'. "
                "Add val/CLASS/IMAGE files with the classes of the training set"
            )
        return validation

    def _train_folder(self) -> Path:
        if not self._unlabeled:
            return self.folder_of("train")
        if not self._root.is_dir():
            raise UserError(f"data.root '{self._root}' is not a folder. Give the folder that holds the images")
        # Here a folder named val has no special meaning.
        return self._root if _named(self._listing(self._root), "train") is None else self.folder_of("train")

    def _listing(self, folder: Path) -> Listing:
        if folder not in self._listings:
            self._listings[folder] = list_folder(folder)
        return self._listings[folder]


def _named(listing: Listing, name: str) -> Path | None:
    """The folder of a part, in any spelling of its name; raises `ConfigError` if there are two spellings."""
    spellings = [entry for entry in listing.folders if entry.lower() == name]
    if len(spellings) > 1:
        problem = f"'{listing.folder}' has the folders {' and '.join(map(repr, spellings))}"
        raise ConfigError("data.root", problem, f"Keep one '{name}'")
    return listing.folder / spellings[0] if spellings else None


def _check_one_reading(listing: Listing, train: Path) -> None:
    """Refuse a folder `train` that may be a class: other folders beside it hold images too and are no parts."""
    root = listing.folder
    others = [name for name in listing.folders if name.lower() not in PARTS and has_image(root / name)]
    if not others:
        return
    inside = list_folder(train).folders
    beside = sorted([train.name, *others])
    raise ConfigError(
        "data.layout",
        f"'{root}' can be read in two ways: '{train}' is the training set, {_of(inside)}, and "
        f"{', '.join(map(repr, others[:3]))} no part of it; or it is one {_of(beside)}, one of them "
        f"called '{train.name}'",
        "Set data.layout=splits for the first, or data.layout=classes for the second",
    )


def _of(classes: Sequence[str]) -> str:
    return f"of {len(classes)} class{'es' if len(classes) != 1 else ''}" if classes else "without classes"


def _class_names(listing: Listing) -> list[str]:
    if not listing.folders and not listing.files:
        raise _no_images(listing.folder, None)
    return listing.folders


def _no_images(folder: Path, name: str | None) -> UserError:
    if name is not None:
        return UserError(
            f"class folder '{folder / name}' holds no image. Add some ({', '.join(EXTENSIONS)}) or remove the folder"
        )
    return UserError(
        f"folder '{folder}' holds no class folders. Images must lie in '{folder}/CLASS/', "
        f"or in '{folder}' itself if they have no classes"
    )


def _check_same_classes(folder: Path, names: list[str], like: Path, expected: list[str]) -> None:
    odd = sorted(set(names) ^ set(expected))
    if odd:
        here, there = (folder, like) if odd[0] in names else (like, folder)
        raise UserError(
            f"'{folder}' and '{like}' hold different classes: '{odd[0]}' is in '{here}' and not in '{there}'. "
            "Both must hold the same class folders"
        )
