"""The same network on other data sets: what `evaluation.transfer` names, one context for each."""

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
    taken = {context.data_name}
    for number, other in enumerate(context.settings.transfer):
        name = _name(other)
        if name in taken:
            name = f"{name} (transfer {number})"
        taken.add(name)
        own = {key: getattr(other, key) for key in ("name", "root", "split", "download")}
        yield name, context.config.data.model_copy(update=own)


def _name(other: TransferSetConfig) -> str:
    """`cifar10`, `emnist/letters`, `image_folder:birds`."""
    where = f":{Path(other.root).name}" if other.name in (*FOLDERS, "packed") and other.root is not None else ""
    return other.name + where + ("" if other.split is None else f"/{other.split}")


def _labelled(data: DataConfig, split: Split) -> ImageDataset:
    """That very part, unlike `open_labelled`, which looks for one with labels."""
    images = open_dataset(data, split)
    if not images.num_classes:
        raise UserError(f"the {split} images of {data.name} have no labels, and a classifier needs them")
    return images


@contextmanager
def _named(number: int, name: str) -> Iterator[None]:
    """Errors that name a key of `data` name that of the transfer set instead."""
    place = f"evaluation.transfer.{number}"

    def renamed(text: str) -> str:
        return re.sub(r"\bdata\.(?=(root|split|download)\b)", f"{place}.", text)

    try:
        yield
    except ConfigError as error:
        raise ConfigError(renamed(error.path), renamed(error.problem), renamed(error.remedy)) from None
    except UserError as error:
        raise UserError(f"{place} ({name}): {renamed(str(error))}") from None
