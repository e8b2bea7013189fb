"""The same network on other data sets: one context for each set that `evaluation.transfer` names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import DataConfig
from pipeline.config.data import FOLDERS
from pipeline.config.evaluation import TransferSetConfig
from pipeline.data.sets.datasets import ImageDataset, Split, open_dataset
from pipeline.errors import ConfigError, UserError
from workers.evaluating.context import Context


def transfer_contexts(context: Context) -> Iterator[Context]:
    """The network on each data set of `evaluation.transfer`, in order, with that set's own name for its records.

    Images are resized and normalised as the run's own; gray ones are shown in three equal channels.

    Raises:
        ConfigError, UserError: a data set is missing, damaged, or lacks labels or test images; names
            `evaluation.transfer.N`.
    """
    for number, (name, data) in enumerate(_sets(context)):
        other = context.on(data, name)
        with _named(number, data.name):
            other.train_images = context.readable(_labelled(data, "train"), f"train images of {name}")
            other.test_images = context.readable(_labelled(data, "test"), f"test images of {name}")
        context.tested[name] = len(other.test_images)
        yield other


def check_transfer(context: Context) -> None:
    """Open every data set of `evaluation.transfer` once, so that a missing one is found before anything is measured.

    Raises:
        ConfigError, UserError: as `transfer_contexts`.
    """
    for number, (_, data) in enumerate(_sets(context)):
        with _named(number, data.name):
            for split in ("train", "test"):
                _labelled(data, split)


def _sets(context: Context) -> Iterator[tuple[str, DataConfig]]:
    names = {context.data_name}
    for number, other in enumerate(context.settings.transfer):
        name = _name(other)
        if name in names:
            name = f"{name} (transfer {number})"
        names.add(name)
        settings = {key: getattr(other, key) for key in ("name", "root", "split", "download")}
        yield name, context.config.data.model_copy(update=settings)


def _name(other: TransferSetConfig) -> str:
    """`cifar10`, `emnist/letters`, `image_folder:birds`."""
    folder = f":{Path(other.root).name}" if other.name in (*FOLDERS, "packed") and other.root is not None else ""
    return other.name + folder + ("" if other.split is None else f"/{other.split}")


def _labelled(data: DataConfig, split: Split) -> ImageDataset:
    """Exactly that part, unlike `open_labelled`, which takes another one if it has no labels."""
    images = open_dataset(data, split)
    if not images.num_classes:
        raise UserError(f"the {split} images of {data.name} have no labels, and a classifier needs them")
    return images


@contextmanager
def _named(number: int, name: str) -> Iterator[None]:
    """Makes errors that name a key of `data` name the key of the transfer set instead."""
    place = f"evaluation.transfer.{number}"

    def renamed(text: str) -> str:
        return re.sub(r"\bdata\.(?=(root|split|download)\b)", f"{place}.", text)

    try:
        yield
    except ConfigError as error:
        raise ConfigError(renamed(error.path), renamed(error.problem), renamed(error.remedy)) from None
    except UserError as error:
        raise UserError(f"{place} ({name}): {renamed(str(error))}") from None
