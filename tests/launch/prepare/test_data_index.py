"""A run goes on with the data it began with, or not at all; data without labels are refused where one needs them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import DataConfig
from pipeline.data.sets import unreadable
from pipeline.data.sets.datasets import open_dataset
from pipeline.data.sets.index import Index, fingerprint

Onward = Callable[..., Any]
Refused = Callable[[Any, str], None]


@pytest.fixture
def started(folder: Path, onward: Onward, fake_training: list[Path]) -> Path:
    """A run that was stopped in its first step."""
    assert onward("train", "config.yaml", "run_dir=run").code == 0
    assert len(fake_training) == 1
    return folder


def test_a_run_keeps_the_index_of_its_data(started: Path, onward: Onward, fake_training: list[Path]) -> None:
    index = Index.from_bytes((started / "run" / "data_index.npz").read_bytes(), "x")
    assert index.fingerprint == fingerprint(open_dataset(DataConfig(name="image_folder", root="images"), "train"))
    assert onward("train", "config.yaml", "run_dir=run").code == 0
    assert len(fake_training) == 2


def test_the_data_may_move(started: Path, onward: Onward) -> None:
    shutil.move("images", "elsewhere")
    assert onward("train", "config.yaml", "run_dir=run", "data.root=elsewhere").code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "class0/1.png").unlink(), r"'class0/1\.png' is gone; it has 7 images now and had 8"),
        (lambda f: (f / "class0/1.png").write_bytes(b"x"), r"'class0/1\.png' has 1 bytes now and had \d+"),
        (lambda f: shutil.copy(f / "class0/1.png", f / "class1/9.png"), r"'class1/9\.png' is new; it has 9"),
    ],
)
def test_data_that_changed_are_refused_before_anything_starts(
    started: Path, onward: Onward, assert_refused: Refused, change: Callable[[Path], object], words: str
) -> None:
    change(started / "images" / "train")
    for command in ("check", "train"):
        refused = onward(command, "config.yaml", "run_dir=run")
        assert_refused(
            refused, rf"^data\.root: the training set is not the one that the run in 'run' began with: {words}"
        )


def test_a_run_from_before_there_were_indices(started: Path, onward: Onward, fake_training: list[Path]) -> None:
    (started / "run" / "data_index.npz").unlink()
    assert onward("train", "config.yaml", "run_dir=run").code == 0
    assert len(fake_training) == 2
    assert (started / "run" / "data_index.npz").is_file()  # from now on there is one


def test_a_damaged_index_is_named(started: Path, onward: Onward, assert_refused: Refused) -> None:
    (started / "run" / "data_index.npz").write_bytes(b"?")
    assert_refused(onward("train", "config.yaml", "run_dir=run"), r"'run/data_index\.npz' is no index of a data set")


@pytest.mark.parametrize("key", ["data.in_memory=true", "data.on_error=skip", "data.workers=2", "data.affinity=false"])
def test_how_the_data_are_read_may_change(started: Path, onward: Onward, key: str) -> None:
    assert onward("train", "config.yaml", "run_dir=run", key).code == 0


def test_images_without_labels(folder: Path, onward: Onward, assert_refused: Refused) -> None:
    flat = "data.root=images/train/class0"
    assert onward("check", "config.yaml", flat).code == 0
    refused = onward("check", "config.yaml", flat, "objective.kind=supervised")
    assert_refused(
        refused, r"^objective\.kind: supervised needs labels at stage 1, and the images of image_folder have none"
    )
    refused = onward("check", "config.yaml", "data.split=unlabeled", "objective.kind=supervised")
    assert_refused(refused, "needs labels")
    assert_refused(
        onward("check", "config.yaml", "data.split=first"), r"^data\.split: image_folder has no training part"
    )


def test_a_data_set_that_is_not_there(folder: Path, onward: Onward, assert_refused: Refused) -> None:
    for name, words in (
        (
            "flowers102",
            r"data\.root '.*images' holds no flowers102: '.*images/flowers-102/jpg' is missing. Point data\.root",
        ),
        ("stanford_cars", "torchvision cannot download it"),
        ("packed", r"images' is no packed data set"),
        ("mnist", r"holds no mnist: neither 'train-images-idx3-ubyte.gz' nor 'MNIST/raw/"),
        ("cifar11", "Did you mean 'cifar10'"),
    ):
        assert_refused(onward("check", "config.yaml", f"data.name={name}"), words)


def damage(folder: Path, *names: str) -> None:
    for name in names:
        (folder / "images" / "train" / name).write_bytes(b"")


def test_heights_and_widths_are_kept(started: Path) -> None:
    index = Index.from_bytes((started / "run" / "data_index.npz").read_bytes(), "x")
    assert index.heights.tolist() == index.widths.tolist() == [16] * 8


@pytest.fixture
def unsampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample of files that is looked at before is without the damaged ones, as it is in a large data set."""
    monkeypatch.setattr(unreadable, "HEADERS_CHECKED", 1)
    monkeypatch.setattr(unreadable, "IMAGES_DECODED", 1)


@pytest.mark.usefixtures("unsampled")
def test_every_header_is_looked_at_before_a_run_is_made(
    folder: Path, onward: Onward, assert_refused: Refused, fake_training: list[Path]
) -> None:
    damage(folder, "class0/2.png", "class1/3.png")
    refused = onward("train", "config.yaml", "run_dir=run")
    first = r"^image '.*class0/2\.png' cannot be decoded \(the file is empty\)\. Replace or remove the file\. "
    assert_refused(refused, first + r"1 more of the 8 files are no images either\. With data\.on_error=skip others are")
    assert not (folder / "run").exists()
    assert fake_training == []
    assert onward("train", "config.yaml", "run_dir=run", "data.scan_headers=false").code == 0


def test_files_that_others_stand_in_for_are_counted(folder: Path, onward: Onward, fake_training: list[Path]) -> None:
    damage(folder, "class0/0.png", "class1/3.png")
    begun = onward("train", "config.yaml", "run_dir=run", "data.on_error=skip")
    assert (begun.code, len(fake_training)) == (0, 1), begun.err
    assert "2 of 8 files are no images, and others are taken in their place; the first: image" in begun.out
    index = Index.from_bytes((folder / "run" / "data_index.npz").read_bytes(), "x")
    assert index.heights.tolist() == [0, *[16] * 6, 0]


@pytest.mark.usefixtures("unsampled")
def test_headers_are_not_read_again(started: Path, onward: Onward) -> None:
    path = started / "images" / "train" / "class0" / "2.png"
    path.write_bytes(bytes(path.stat().st_size))  # the same size, and no image any more: the index is what counts
    assert onward("train", "config.yaml", "run_dir=run").code == 0
