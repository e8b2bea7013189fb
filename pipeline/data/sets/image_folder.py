"""A folder of class folders of image files: what torchvision's `ImageFolder` reads, without torch.

`root/train/CLASS/...` is the training set and `root/val/CLASS/...` the test set; a root without `train` is
itself the training set. Classes are numbered in the order of their names. A folder without class folders is a
set without labels; with the part `unlabeled`, so is any folder, with all images below it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.config.data import Layout
from pipeline.data.sets.files import FileImages, FileNames
from pipeline.data.sets.folder_walk import EXTENSIONS, SkippedFiles, has_image, images_below, is_image, subfolders
from pipeline.errors import ConfigError, UserError

PARTS = ("train", "val", "valid", "validation", "test", "testing", "unlabeled", "extra", "dev")
"""Names, in any case, of folders beside `train` that are parts of a data set and not classes."""


class FolderImages(FileImages):
    """Image files and their labels; files are opened on access.

    Args:
        folder: holds one folder per class, or images without class folders.
        like: a folder whose classes `folder` must have too, so that the class numbers agree.
        unlabeled: take all images below `folder`, and no folder as a class.

    Raises:
        UserError: no such folder, no images in it, other classes, or a class folder without images.
    """

    def __init__(self, folder: Path, like: Path | None = None, unlabeled: bool = False) -> None:
        left_out = SkippedFiles()
        classes = [] if unlabeled else _class_names(folder, left_out)
        if like is not None and not unlabeled:
            _check_same_classes(folder, classes, like, _class_names(like, SkippedFiles()))
        counts = []

        def names() -> Iterator[str]:
            for place in classes or ["."]:
                paths = images_below(folder, place, left_out)
                if not paths:
                    raise _no_images(folder, place if classes else None)
                counts.append(len(paths))
                yield from paths

        files = FileNames.of(str(folder), names())
        labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts) if classes else np.full(len(files), -1)
        super().__init__(files, labels, classes)
        if classes and (beside := [name for name in sorted(os.listdir(folder)) if _is_file(folder, name)]):
            left_out.by_reason["because they are in no class folder"] = [str(folder / name) for name in beside]
        self.notes = left_out.notes()


def _is_file(folder: Path, name: str) -> bool:
    return is_image(name) and not name.startswith(".") and (folder / name).is_file()


def split_folder(root: Path, split: str, layout: Layout = "auto") -> Path:
    """The folder of the training set ("train") or of the test set ("test").

    Args:
        root: of the data set.
        split: "train" or "test".
        layout: `splits`: the parts are in `train` and `val`; `classes`: every folder is a class; `auto` decides.

    Raises:
        UserError: there is no such folder.
        ConfigError: the folder can be read in two ways.
    """
    if not root.is_dir():
        raise UserError(f"data.root '{root}' is not a folder. Give the folder that holds train/CLASS/IMAGE files")
    train, validation = (_named(root, name) for name in ("train", "val"))
    if layout == "auto" and train is not None:
        _check_one_reading(root, train)
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


def _named(root: Path, name: str) -> Path | None:
    """The folder of a part, in any spelling of its name; raises `ConfigError` if there are two spellings."""
    names = [entry for entry in subfolders(root) if entry.lower() == name]
    if len(names) > 1:
        raise ConfigError(
            "data.root", f"'{root}' has the folders {' and '.join(map(repr, names))}", f"Keep one '{name}'"
        )
    return root / names[0] if names else None


def has_train(root: Path) -> bool:
    """Whether a folder has a subfolder for the training set."""
    return _named(root, "train") is not None


def _check_one_reading(root: Path, train: Path) -> None:
    """Refuse a folder `train` that may be a class: other folders beside it hold images too and are no parts."""
    others = [name for name in subfolders(root) if name.lower() not in PARTS]
    others = [name for name in others if has_image(root / name)]
    if not others:
        return
    inside = subfolders(train)
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


def image_names(folder: Path) -> list[str]:
    """All image files below a folder, relative to it, in the order of their names; links are followed."""
    return images_below(folder, ".", SkippedFiles())


def _class_names(folder: Path, left_out: SkippedFiles) -> list[str]:
    names = subfolders(folder, left_out)
    if not names and not any(is_image(name) for name in os.listdir(folder)):
        raise _no_images(folder, None)
    return names


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
