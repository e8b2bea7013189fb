"""A data set of the user's own: anything with `len()` and `[index]`, as PyTorch's map-style data sets are.

`data.name: PACKAGE.MODULE:NAME` names the function or class, which is called with `train` or `test`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import DataConfig
from pipeline.data.sets.arrays import NumberedImages
from pipeline.errors import ConfigError, UserError, first_line
from pipeline.plugins import Plugin

KEY = "data.name"
FORM = "Give an image of PIL, or uint8 [H, W] or [H, W, 3]; alone, or with its class: (image, class)"


class CustomImages(NumberedImages):
    """The images of such a data set, with the interface of the others.

    Classes are its attribute `targets` or `labels`, if that has one for every image; otherwise the second of what
    `[index]` gives, for which every item is read once.

    Args:
        items: has `len()` and `[index]`; the latter gives an image, or an image and its class, counted from 0.
        name: for messages.

    Raises:
        ConfigError: it has no length, or gives something else.
        UserError: an item cannot be read.
    """

    def __init__(self, items: Any, name: str) -> None:
        self._items, self.name = items, name
        if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
            problem = f"'{name}' is of type {type(items).__name__}, which has no len() and [index]"
            raise ConfigError(KEY, problem, "Give a data set such as those of PyTorch, with a known length")
        self.labels = self._find_labels()
        classes = getattr(items, "classes", ())
        count = max(len(classes) if isinstance(classes, list | tuple) else 0, int(self.labels.max(initial=-1)) + 1)
        self.num_classes = 0 if len(self.labels) and self.labels.min() < 0 else count

    def __len__(self) -> int:
        return len(self._items)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """`[H, W]` or `[H, W, 3]`, contiguous; raises `UserError` if the item cannot be read, or is no image."""
        image = self._item(index)
        image = image[0] if isinstance(image, tuple | list) else image
        if isinstance(image, Image.Image):
            return np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        array = np.asarray(image)
        if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
            form = f"{array.dtype} of shape {list(array.shape)}" if array.ndim else f"a {type(image).__name__}"
            raise UserError(f"{self.name_of(index)} is {form}, and no image. {FORM}")
        return np.ascontiguousarray(array)

    def _item(self, index: int) -> Any:
        try:
            return self._items[index]
        except Exception as error:
            raise UserError(
                f"{self.name_of(index)} cannot be read ({first_line(error)}). Correct the data set"
            ) from None

    def _find_labels(self) -> NDArray[np.int64]:
        count = len(self)
        for name in ("targets", "labels"):
            found = np.asarray(getattr(self._items, name, ()))
            if found.shape == (count,) and found.dtype.kind in "iu":
                return found.astype(np.int64)
        if count and not _has_class(self._item(0)):
            return np.full(count, -1, np.int64)
        items = (self._item(index) for index in range(count))
        return np.array([int(item[1]) if _has_class(item) else -1 for item in items], np.int64)


def open_custom(data: DataConfig, split: str) -> CustomImages:
    """The training or test set that `data.name` names.

    Args:
        data: section `data` of the configuration.
        split: `train` or `test`.

    Raises:
        ConfigError: it cannot be imported or called, or gives no data set.
        UserError: it has no such part, for which it returns None; or an item cannot be read.
    """
    items = Plugin(KEY, data.name, KEY, {}).call(split)
    if items is None:
        raise UserError(f"'{data.name}' has no {split} images")
    return CustomImages(items, f"{data.name}/{split}")


def _has_class(item: Any) -> bool:
    return isinstance(item, tuple | list) and len(item) > 1 and isinstance(item[1], int | np.integer)
