"""Reads the published corrupted test sets from disk: ImageNet-C and its like, and CIFAR-10-C and its like.

ImageNet-C consists of folders, `FOLDER/CORRUPTION/SEVERITY/CLASS/IMAGE`, or with the downloaded group in between,
`FOLDER/noise/gaussian_noise/1/...`. CIFAR-10-C consists of arrays: `CORRUPTION.npy`, uint8 `[5 N, H, W, 3]` with all
images of severity 1 first, and `labels.npy`, `[5 N]`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.sets.arrays import ArrayImages
from pipeline.data.sets.datasets import ImageDataset
from pipeline.data.sets.folder_walk import list_folder
from pipeline.data.sets.image_folder import FolderImages
from pipeline.errors import ConfigError, UserError
from pipeline.evaluation.corruptions.names import SEVERITIES
from pipeline.ordinary_files import open_to_read

KEY = "evaluation.corruptions.folder"
LABELS = "labels.npy"
NAMED_AT_MOST = 5


class CorruptedSets:
    """The corrupted versions of one test set.

    Args:
        folder: of ImageNet-C or CIFAR-10-C.
        names, severities: those that will be opened.
        clean: the test set without corruptions; the corrupted images must have the same classes.

    Raises:
        ConfigError: the folder does not exist, or lacks one of them; the message names what is missing.
    """

    def __init__(self, folder: str, names: Collection[str], severities: Collection[int], clean: ImageDataset) -> None:
        self._folder, self._clean = Path(folder).expanduser(), clean
        if not self._folder.is_dir():
            raise ConfigError(KEY, f"'{self._folder}' is not a folder", "Give the folder of ImageNet-C or CIFAR-10-C")
        self._arrays = (self._folder / LABELS).is_file()
        wanted = [(name, severity) for name in names for severity in severities]
        missing = list(dict.fromkeys(str(place) for place in map(self._place, wanted) if not place.exists()))
        if missing:
            more = f" and {len(missing) - NAMED_AT_MOST} more" if len(missing) > NAMED_AT_MOST else ""
            raise ConfigError(
                KEY,
                f"missing: {', '.join(missing[:NAMED_AT_MOST])}{more}",
                "Complete the folder, or give those that are there as evaluation.corruptions.names and .severities",
            )

    def open(self, name: str, severity: int) -> ImageDataset:
        """The test images under one corruption at one severity, 1 to 5.

        Raises:
            UserError: files are damaged, or their labels are not those of the clean test set.
        """
        place = self._place((name, severity))
        if self._arrays:
            return self._open_arrays(place, severity)
        images = FolderImages(list_folder(place))
        expected = list(getattr(self._clean, "classes", ()))
        odd = sorted(set(expected) ^ set(images.classes)) if expected else []
        if odd:
            difference = (
                f"in '{place}' and not in the test set" if odd[0] in images.classes else f"missing in '{place}'"
            )
            raise UserError(f"{KEY}: class '{odd[0]}' is {difference}. Both must have the same classes")
        if images.num_classes != self._clean.num_classes:
            raise UserError(
                f"{KEY}: '{place}' has {images.num_classes} classes, and the test set {self._clean.num_classes}"
            )
        return images

    def _place(self, wanted: tuple[str, int]) -> Path:
        name, severity = wanted
        if self._arrays:
            return self._folder / f"{name}.npy"
        direct = self._folder / name / str(severity)
        return direct if direct.exists() else next(self._folder.glob(f"*/{name}/{severity}"), direct)

    def _open_arrays(self, place: Path, severity: int) -> ArrayImages:
        images, labels = _read(place), _read(self._folder / LABELS)
        count = len(labels) // len(SEVERITIES)
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
            raise UserError(f"'{place}' holds {images.dtype} {list(images.shape)}, and not uint8 [5 N, H, W, 3]")
        if labels.ndim != 1 or len(images) != len(labels) or len(labels) != count * len(SEVERITIES) or not count:
            raise UserError(
                f"'{place}' holds {len(images)} images and '{self._folder / LABELS}' {list(labels.shape)} labels. "
                "Both must have the same number for each of the five severities"
            )
        rows = slice((severity - 1) * count, severity * count)
        checked = self._checked(labels[rows])
        return ArrayImages(images[rows], checked, self._clean.num_classes, f"{place.stem}/{severity}")

    def _checked(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        place, classes = self._folder / LABELS, self._clean.num_classes
        if not np.issubdtype(labels.dtype, np.integer):
            raise UserError(f"'{place}' holds {labels.dtype}, and labels are whole numbers")
        numbers = labels.astype(np.int64)
        if not 0 <= numbers.min() <= numbers.max() < classes:
            raise UserError(
                f"'{place}' holds labels from {numbers.min()} to {numbers.max()}, and there are {classes} classes"
            )
        clean = np.asarray(self._clean.labels)
        if len(numbers) == len(clean) and not np.array_equal(np.bincount(numbers), np.bincount(clean)):
            raise UserError(f"'{place}' holds other labels than the test set, so its images differ too")
        return numbers


def _read(path: Path) -> NDArray[Any]:
    """An array, mapped from its file; raises `UserError` if it is damaged."""
    try:
        open_to_read(path).close()  # raises for a pipe, on which numpy would block
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"'{path}' cannot be read as an array of numpy ({reason}). Fetch it again") from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"'{path}' holds several arrays, and must be one .npy file. Fetch it again")
    return array
