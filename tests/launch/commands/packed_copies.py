"""What `onward data pack` has made of a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config import DataConfig
from pipeline.data.sets.datasets import open_dataset
from pipeline.data.sets.folder_walk import list_folder
from pipeline.data.sets.image_folder import FolderImages
from pipeline.data.sets.packed import PackedImages

Onward = Callable[..., Any]


def packed(root: Path, split: Any = "train") -> PackedImages:
    found = open_dataset(DataConfig(name="packed", root=str(root)), split)
    assert isinstance(found, PackedImages)
    return found


def tree(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def original(source: Path, split: str = "train") -> FolderImages:
    return FolderImages(list_folder(source / split))
