"""Files of images that are gone, cannot be opened, or lie on a system that reads nothing ahead."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.sets import files
from pipeline.data.sets.files import read_ahead, read_error, read_image
from pipeline.data.sets.folder_walk import _identity
from pipeline.data.sets.jpeg_header import read_header


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)).save(path)
    return path


def test_where_nothing_can_be_read_ahead_files_are_read_when_they_are_wanted(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.delattr(os, "posix_fadvise")
    monkeypatch.setattr(files.os, "open", lambda path, flags: opened.append(path))
    read_ahead([str(photo)])
    assert opened == []
    monkeypatch.undo()
    assert read_image(str(photo)).shape == (9, 14, 3)


def test_a_file_that_is_gone_is_no_matter_for_reading_ahead(tmp_path: Path, photo: Path) -> None:
    read_ahead([str(tmp_path / "gone.jpg"), str(photo)])


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file"), "image 'a.jpg' does not exist any more. Put it back or start again"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (OSError("the server does not answer"), "the server does not answer"),
    ],
)
def test_why_a_file_cannot_be_opened(error: OSError, text: str) -> None:
    said = str(read_error("a.jpg", error))
    assert "'a.jpg'" in said
    assert text in said


def test_bytes_that_fill_the_space_between_the_parts_of_a_jpeg_are_skipped(photo: Path) -> None:
    """The standard allows any number of 0xFF before a marker; some scanners write them."""
    data = photo.read_bytes()
    plain = read_header(data)
    assert plain is not None
    assert (plain.height, plain.width, plain.components) == (9, 14, 3)
    filled = read_header(data[:2] + b"\xff\xff\xff" + data[2:])
    assert filled is not None
    assert (filled.height, filled.width, filled.scan) == (9, 14, plain.scan + 3)
    alone = read_header(data[:2] + b"\xff\xd0" + data[2:])  # a marker without a length
    assert alone is not None
    assert (alone.height, alone.scan) == (9, plain.scan + 2)


def test_a_folder_is_known_again_by_what_it_is_and_one_that_is_gone_is_like_no_other(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert _identity(str(tmp_path / "link")) == _identity(str(tmp_path)) != (0, 0)
    assert _identity(str(tmp_path / "gone")) == (0, 0)
