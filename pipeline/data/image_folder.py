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

from pipeline.data.files import FileImages, FileNames, read_image
from pipeline.data.headers import read_size
from pipeline.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
HEADERS_CHECKED = 10_000
IMAGES_DECODED = 256


class FolderImages(FileImages):
    """Image files and their labels; files are opened when they are asked for.

    Args:
        folder: holds one folder a class, or images without class folders.
        like: folder with the classes that `folder` must have too, so that their numbers agree.
        unlabeled: take all images below `folder`, and no folder for a class.

    Raises:
        UserError: no such folder, no images in it, other classes, or a class folder without images.
    """

    def __init__(self, folder: Path, like: Path | None = None, unlabeled: bool = False) -> None:
        classes = [] if unlabeled else _class_names(folder)
        if like is not None and not unlabeled:
            _check_same_classes(folder, classes, like, _class_names(like))
        counts = []

        def names() -> Iterator[str]:
            for place in classes or ["."]:
                found = _image_files(folder, place)
                if not found:
                    raise _no_images(folder, place if classes else None)
                counts.append(len(found))
                yield from found

        files = FileNames.of(str(folder), names())
        labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts) if classes else np.full(len(files), -1)
        super().__init__(files, labels, classes)


def split_folder(root: Path, split: str) -> Path:
    """The folder of the training set ("train") or of the test set ("test"); raises `UserError` if there is none."""
    if not root.is_dir():
        raise UserError(f"data.root '{root}' is not a folder. Give the folder that holds train/CLASS/IMAGE files")
    train, validation = root / "train", root / "val"
    if split == "train":
        if validation.is_dir() and not train.is_dir():
            raise UserError(f"'{root}' has a folder 'val' but no 'train'. Put the training images in '{train}'")
        return train if train.is_dir() else root
    if not validation.is_dir():
        raise UserError(
            f"'{root}' has no test images: there is no folder '{validation}'. "
            "Add val/CLASS/IMAGE files with the classes of the training set"
        )
    return validation


def check_files(files: Sequence[str]) -> None:
    """Look at the headers of up to 10,000 evenly spaced files and decode up to 256 of them.

    Raises:
        UserError: naming the first file found that cannot be read.
    """
    for path in _evenly(files, HEADERS_CHECKED):
        read_size(path)
    for path in _evenly(files, IMAGES_DECODED):
        read_image(path)


def image_names(folder: Path) -> list[str]:
    """All image files below a folder, relative to it, in the order of their names; links are followed."""
    return _image_files(folder, ".")


def _class_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_dir()) for entry in entries]
    except OSError as error:
        raise UserError(
            f"folder '{folder}' cannot be read ({error.strerror}). Check data.root and its permissions"
        ) from None
    names = sorted(name for name, is_folder in found if is_folder)
    if not names and not any(name.lower().endswith(EXTENSIONS) for name, _ in found):
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


def _image_files(folder: Path, place: str) -> list[str]:
    """Images below `folder/place`, relative to `folder`: folders in the order of their paths, as torchvision does."""
    found = []
    top = os.path.join(folder, place)
    for where, _, names in sorted(os.walk(top, followlinks=True)):
        relative = os.path.normpath(os.path.join(place, os.path.relpath(where, top)))
        prefix = "" if relative == "." else relative + "/"
        found += [prefix + name for name in sorted(names) if name.lower().endswith(EXTENSIONS)]
    return found


def _evenly(files: Sequence[str], most: int) -> list[str]:
    count = min(len(files), most)
    return [files[i * len(files) // count] for i in range(count)]
