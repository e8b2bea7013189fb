"""The images that classifiers are fitted and tested on: all that have a label and can be decoded.

With `data.on_error: skip` every file is decoded once before features are made of it, and broken ones are left out of
fitting and testing, by all measures and all processes alike. No other image replaces a broken one, as it does in
training: an image that is tested twice would count twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from pipeline.config import DataConfig
from pipeline.data.sets.datasets import ImageDataset, Split, open_labelled
from pipeline.data.sets.files import FileImages
from pipeline.data.sets.unreadable import find_unreadable, summarized
from pipeline.errors import UserError
from workers.evaluating.ranks import Ranks

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many images are done, and how many there are in all."""


class LabelledImages:
    """Opens parts of data sets without the images that cannot be decoded, which are looked for once per part.

    Args:
        note: called with a sentence for each part of which some are left out.

    Attributes:
        left_out: how many of the run's own data set, by part; parts that were not opened are not in it.
        images: how many of it are left, by part.
    """

    def __init__(self, note: Callable[[str], None] = lambda text: None) -> None:
        self._note = note
        self._readable: dict[bytes, ImageDataset] = {}
        self.left_out: dict[Split, int] = {}
        self.images: dict[Split, int] = {}

    def open(self, data: DataConfig, split: Split, progress: Progress, ranks: Ranks | None = None) -> ImageDataset:
        """The part of the run's data set with labels; raises `UserError` as `open_labelled` and `readable`."""
        whole = open_labelled(data, split)
        readable = self.readable(whole, data, f"{split} images", progress, ranks)
        self.left_out[split], self.images[split] = len(whole) - len(readable), len(readable)
        return readable

    def readable(
        self, images: ImageDataset, data: DataConfig, description: str, progress: Progress, ranks: Ranks | None = None
    ) -> ImageDataset:
        """Those that can be decoded, where `data.on_error` is skip; else all, and a broken one raises when it is read.

        Args:
            images: of any data set.
            data: its `on_error`.
            description: what they are called in messages.
            progress: called with how far the search is.
            ranks: the processes that share the work; all must ask for the same, in the same order.

        Raises:
            UserError: none can be decoded.
            TrainingError: another process does not answer.
        """
        if data.on_error == "fail" or not isinstance(images, FileImages):
            return images
        key = hashlib.sha256(f"{images.files.root}\0".encode(errors="surrogateescape"))
        key.update(images.files.text.data)
        if key.digest() not in self._readable:
            self._readable[key.digest()] = self._without_broken(images, description, progress, ranks)
        return self._readable[key.digest()]

    def report(self) -> dict[str, Mapping[Split, int]]:
        """For `report.json`: how many images of each part the probes had, and, if any, how many are left out."""
        left_out = {"left_out": {**self.left_out}} if any(self.left_out.values()) else {}
        return {"probe_images": {**self.images}, **left_out}

    def _without_broken(
        self, images: FileImages, description: str, progress: Progress, ranks: Ranks | None
    ) -> ImageDataset:
        def looked_at(done: int, count: int) -> None:
            progress(f"looking for broken files among the {description}", done, count)

        numbers = range(len(images))
        share = numbers if ranks is None else ranks.share(numbers)
        broken = find_unreadable(images, share, whole=True, progress=looked_at)
        if ranks is not None:
            broken = ranks.join(broken)
        if not broken:
            return images
        if len(broken) == len(images):
            raise UserError(f"none of the {len(images)} {description} can be decoded: {summarized(broken.values())}")
        readable = images.without(broken)
        self._note(f"{len(broken)} of {len(images)} {description} are left out: {summarized(broken.values())}")
        return readable
