"""A folder of photographs holds more than images: each entry is trained on or named, and none is waited for."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.sets.files import open_file
from pipeline.data.sets.folder_walk import SkippedFiles, images_below, list_folder
from pipeline.data.sets.image_folder import FolderImages, ImageFolder
from pipeline.errors import ConfigError, UserError


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("a/1.png", "a/sub/2.png", "b/3.png"):
        image(folder / name)
    return folder


def names(folder: Path) -> list[str]:
    return list(FolderImages(list_folder(folder)).files.relatives())


ALL = ["a/1.png", "a/sub/2.png", "b/3.png"]


@pytest.mark.parametrize("link", ["a/again", "a/sub/up", "latest"])
def test_a_link_that_goes_round_counts_nothing_twice(root: Path, link: str) -> None:
    """`ln -s . again` in the wrong place made 336 images of 16: a class counted 41 times."""
    (root / link).symlink_to(root if link != "a/again" else root / "a")
    assert names(root) == ALL
    (note,) = FolderImages(list_folder(root)).notes
    assert note == f"skipped, because they link to a folder that contains them: '{root / link}'"


def test_a_link_to_another_folder_is_followed(root: Path, tmp_path: Path) -> None:
    image(tmp_path / "elsewhere" / "4.png")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    assert names(root) == [*ALL, "c/4.png"]
    assert FolderImages(list_folder(root)).notes == []


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def make_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        path.symlink_to(os.devnull)


@pytest.mark.parametrize(
    ("make", "kind"), [(os.mkfifo, "a pipe"), (make_socket, "a socket"), (make_device, "a device")]
)
def test_what_is_no_file_is_named_and_never_opened(root: Path, make: Callable[[Path], None], kind: str) -> None:
    make(root / "a" / "0.png")
    found = FolderImages(list_folder(root))
    assert list(found.files.relatives()) == ALL
    assert found.notes == [f"skipped, because each is {kind} and no file: '{root / 'a' / '0.png'}'"]


def test_a_pipe_that_came_later_is_refused_at_once(root: Path) -> None:
    os.mkfifo(root / "late.png")
    with pytest.raises(OSError, match="it is no file"):
        open_file(str(root / "late.png"))


def test_hidden_entries_are_named(root: Path) -> None:
    image(root / ".ipynb_checkpoints" / "1.png")
    image(root / "a" / "._1.png")
    found = FolderImages(list_folder(root))
    assert found.classes == ["a", "b"]
    assert list(found.files.relatives()) == ALL
    (note,) = found.notes
    assert note.startswith("skipped, because they are hidden: ")
    assert ".ipynb_checkpoints" in note
    assert "._1.png" in note


def test_images_beside_the_classes_are_named(root: Path) -> None:
    for number in range(5):
        image(root / f"{number}.png")
    (note,) = FolderImages(list_folder(root)).notes
    assert note.startswith("skipped, because they are in no class folder: ")
    assert note.endswith("and 2 more")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_an_error(root: Path) -> None:
    (root / "a" / "sub").chmod(0)
    try:
        with pytest.raises(UserError, match=r"folder '.*sub' cannot be read \(Permission denied\)"):
            FolderImages(list_folder(root))
    finally:
        (root / "a" / "sub").chmod(0o755)


def test_an_error_below_is_an_error_of_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"folder '.*sub' cannot be read \(Permission denied\)\. Let this user read it"):
        FolderImages(list_folder(root))


def test_a_link_that_leads_nowhere_counts_for_its_content_may_come(root: Path) -> None:
    (root / "a" / "9.png").symlink_to("/nowhere/x.png")
    assert names(root) == ["a/1.png", "a/9.png", "a/sub/2.png", "b/3.png"]


def test_folders_come_in_the_order_of_their_paths_as_torchvision_has_them(tmp_path: Path) -> None:
    """Another order would give every image another number, and with it other augmentations."""
    for name in ("a/z.png", "a-b/y.png", "a/x/w.png", "a/x-y/v.png"):
        image(tmp_path / name)
    torchvisions = [
        os.path.relpath(os.path.join(where, name), tmp_path)
        for where, _, files in sorted(os.walk(tmp_path, followlinks=True))
        for name in sorted(files)
    ]
    listing = list_folder(tmp_path)
    assert images_below(listing, ".", SkippedFiles()) == torchvisions
    assert images_below(listing, "a", SkippedFiles()) == [name for name in torchvisions if name.startswith("a/")]
    assert listing.folders == ["a", "a-b"]


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN"])
@pytest.mark.parametrize("val", ["val", "VAL"])
def test_the_parts_are_found_however_they_are_written(tmp_path: Path, train: str, val: str) -> None:
    for part in (train, val):
        image(tmp_path / part / "a" / "1.png")
    assert ImageFolder(tmp_path).folder_of("train") == tmp_path / train
    assert ImageFolder(tmp_path).folder_of("test") == tmp_path / val


def test_two_spellings_of_a_part_are_an_error(tmp_path: Path) -> None:
    for part in ("train", "Train"):
        image(tmp_path / part / "a" / "1.png")
    with pytest.raises(ConfigError, match=r"^data\.root: .* has the folders 'Train' and 'train'\. Keep one"):
        ImageFolder(tmp_path).folder_of("train")


def test_a_class_that_is_called_train_is_an_error_that_shows_both_readings(tmp_path: Path) -> None:
    """Of bus/ car/ train/ boat/ only the trains were trained on, without a word."""
    for name in ("boat", "bus", "car", "train"):
        image(tmp_path / name / "1.png")
    with pytest.raises(ConfigError, match=r"^data\.layout: .* can be read in two ways: ") as caught:
        ImageFolder(tmp_path).folder_of("train")
    assert "it is one of 4 classes, one of them called 'train'" in str(caught.value)
    assert "'boat', 'bus', 'car' no part of it" in str(caught.value)
    assert ImageFolder(tmp_path, "classes").folder_of("train") == tmp_path
    assert ImageFolder(tmp_path, "splits").folder_of("train") == tmp_path / "train"
    with pytest.raises(UserError, match="no test images"):
        ImageFolder(tmp_path, "classes").folder_of("test")


@pytest.mark.parametrize("beside", ["test/a/1.png", "Devkit/readme.txt", "val/a/1.png"])
def test_other_parts_and_folders_without_images_are_no_classes(tmp_path: Path, beside: str) -> None:
    image(tmp_path / "train" / "a" / "1.png")
    if beside.endswith("png"):
        image(tmp_path / beside)
    else:
        (tmp_path / beside).parent.mkdir()
        (tmp_path / beside).touch()
    assert ImageFolder(tmp_path).folder_of("train") == tmp_path / "train"


def test_a_class_that_is_called_val_can_be_told(tmp_path: Path) -> None:
    for name in ("val", "other"):
        image(tmp_path / name / "1.png")
    with pytest.raises(UserError, match=r"set data\.layout=classes if 'val' is a class"):
        ImageFolder(tmp_path).folder_of("train")
    assert ImageFolder(tmp_path, "classes").folder_of("train") == tmp_path
    with pytest.raises(UserError, match=r"has no folder 'train' \(data\.layout=splits\)"):
        ImageFolder(tmp_path / "other", "splits").folder_of("train")
