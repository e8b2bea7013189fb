"""A folder of class folders of image files: what torchvision's `ImageFolder` reads, without torch.

`root/train/CLASS/...` is the training set and `root/val/CLASS/...` the test set; a root without
`train` is itself the training set. Classes are numbered in the order of their names.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
HEADERS_CHECKED = 10_000
IMAGES_DECODED = 256


class FolderImages:
    """Image files and their labels; files are opened when they are asked for.

    Args:
        folder: holds one folder a class.
        like: folder with the classes that `folder` must have too, so that their numbers agree.

    Raises:
        UserError: no such folder, no class folders, other classes, or a class folder without images.
    """

    def __init__(self, folder: Path, like: Path | None = None) -> None:
        self.classes = _class_names(folder)
        if like is not None:
            _check_same_classes(folder, self.classes, like, _class_names(like))
        self.files: list[str] = []
        counts = []
        for name in self.classes:
            found = _image_files(folder / name)
            if not found:
                raise UserError(
                    f"class folder '{folder / name}' holds no image. "
                    f"Add some ({', '.join(EXTENSIONS)}) or remove the folder"
                )
            self.files += found
            counts.append(len(found))
        self.labels: NDArray[np.int64] = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        self.num_classes = len(self.classes)

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> Image.Image:
        """The image, mode L or RGB; raises `UserError` if its file cannot be decoded."""
        return read_image(self.files[index])

    def label(self, index: int) -> int:
        """The number of the image's class."""
        return int(self.labels[index])

    def name_of(self, index: int) -> str:
        """The path of the image's file."""
        return self.files[index]


def read_image(path: str) -> Image.Image:
    """Decode a file; gray stays gray (L), everything else becomes RGB.

    Raises:
        UserError: the file is missing, damaged or no image.
    """
    try:
        with Image.open(path) as image:
            if image.mode == "L":
                image.load()
                return image
            return image.convert("RGB")
    except Exception as error:  # PIL's decoders raise whatever a damaged file leads them to
        raise _undecodable(path, error) from None


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


def check_files(files: list[str]) -> None:
    """Look at the headers of up to 10,000 evenly spaced files and decode up to 256 of them.

    Raises:
        UserError: naming the first file found that cannot be read.
    """
    for path in _evenly(files, HEADERS_CHECKED):
        try:
            with Image.open(path):
                pass
        except Exception as error:  # as above
            raise _undecodable(path, error) from None
    for path in _evenly(files, IMAGES_DECODED):
        read_image(path)


def _class_names(folder: Path) -> list[str]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise UserError(
            f"folder '{folder}' cannot be read ({error.strerror}). Check data.root and its permissions"
        ) from None
    if not names:
        raise UserError(f"folder '{folder}' holds no class folders. Images must lie in '{folder}/CLASS/'")
    return names


def _check_same_classes(folder: Path, names: list[str], like: Path, expected: list[str]) -> None:
    odd = sorted(set(names) ^ set(expected))
    if odd:
        here, there = (folder, like) if odd[0] in names else (like, folder)
        raise UserError(
            f"'{folder}' and '{like}' hold different classes: '{odd[0]}' is in '{here}' and not in '{there}'. "
            "Both must hold the same class folders"
        )


def _image_files(folder: Path) -> list[str]:
    found = []
    for place, _, names in sorted(os.walk(folder, followlinks=True)):
        found += [os.path.join(place, name) for name in sorted(names) if name.lower().endswith(EXTENSIONS)]
    return found


def _evenly(files: list[str], most: int) -> list[str]:
    count = min(len(files), most)
    return [files[i * len(files) // count] for i in range(count)]


def _undecodable(path: str, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"image '{path}' does not exist any more. Put it back or start again without it")
    reason = "not an image that can be read" if isinstance(error, UnidentifiedImageError) else str(error)
    return UserError(f"image '{path}' cannot be decoded ({reason}). Replace or remove the file")
