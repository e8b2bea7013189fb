"""The images that classifiers are fitted and tested on: all with labels, but those that cannot be decoded.

With `data.on_error: skip` every file is decoded once before features are made of it, and what is broken is left out of
the fit and of the test, by all measures and all processes alike. Nothing can stand in here, as it does in training: an
image that is tested twice counts twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from pipeline.config import DataConfig
from pipeline.data.sets.datasets import ImageDataset, Split, open_labelled
from pipeline.data.sets.files import FileImages
from pipeline.data.sets.unreadable import named, unreadable
from pipeline.errors import UserError
from workers.evaluating.ranks import Ranks

Tell = Callable[[str, int, int], None]
"""Called with what is being done, images done and images in all."""


class LabelledImages:
    """Opens parts of data sets, and remembers which of their images are left out.

    Args:
        note: called with a sentence for each part of which some are.

    Attributes:
        left_out: how many of the run's own data set, by part; parts that were not opened are not in it.
    """

    def __init__(self, note: Callable[[str], None] = lambda text: None) -> None:
        self._note = note
        self._known: dict[bytes, ImageDataset] = {}
        self.left_out: dict[Split, int] = {}

    def open(self, data: DataConfig, split: Split, tell: Tell, ranks: Ranks | None = None) -> ImageDataset:
        """The part of the run's data set with labels; raises `UserError` as `open_labelled` and `readable`."""
        whole = open_labelled(data, split)
        found = self.readable(whole, data, f"{split} images", tell, ranks)
        self.left_out[split] = len(whole) - len(found)
        return found

    def readable(
        self, images: ImageDataset, data: DataConfig, what: str, tell: Tell, ranks: Ranks | None = None
    ) -> ImageDataset:
        """Those that can be decoded, where `data.on_error` is skip; else all, and a broken one is an error later.

        Args:
            images: of any data set.
            data: says what to do.
            what: they are, for messages.
            tell: is told how far it is.
            ranks: the processes that share the work; all must ask for the same, in the same order.

        Raises:
            UserError: none can be decoded.
            TrainingError: another process says nothing.
        """
        if data.on_error == "fail" or not isinstance(images, FileImages):
            return images
        key = hashlib.sha256(f"{images.files.root}\0".encode(errors="surrogateescape"))
        key.update(images.files.text.data)
        if key.digest() not in self._known:
            self._known[key.digest()] = self._without_broken(images, what, tell, ranks)
        return self._known[key.digest()]

    def report(self) -> dict[str, Mapping[Split, int]]:
        """For `report.json`: nothing, or how many images of each part no probe has seen."""
        return {"left_out": {**self.left_out}} if any(self.left_out.values()) else {}

    def _without_broken(self, images: FileImages, what: str, tell: Tell, ranks: Ranks | None) -> ImageDataset:
        def progress(done: int, count: int) -> None:
            tell(f"looking for broken files among the {what}", done, count)

        every = range(len(images))
        share = every if ranks is None else ranks.share(every)
        broken = unreadable(images, share, whole=True, progress=progress)
        if ranks is not None:
            broken = ranks.join(broken)
        if not broken:
            return images
        if len(broken) == len(images):
            raise UserError(f"none of the {len(images)} {what} can be decoded: {named(broken.values())}")
        found = images.without(broken)
        self._note(f"{len(broken)} of {len(images)} {what} are left out: {named(broken.values())}")
        return found
