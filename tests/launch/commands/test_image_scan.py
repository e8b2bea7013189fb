"""What `onward check` says of broken files before a run begins: of a sample, of every header, of every image."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.sets import unreadable

Onward = Callable[..., Any]
Refused = Callable[[Any, str], None]


@pytest.fixture
def photos(folder: Path) -> Path:
    """The images of `folder`, with a `val/` like its `train/`: eight and eight."""
    shutil.copytree(folder / "images" / "train", folder / "images" / "val")
    return folder / "images"


def cut(path: Path) -> None:
    """A good header, and half of what should follow."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def comments(outcome: Any) -> str:
    return "\n".join(line for line in outcome.out.splitlines() if line.startswith("#"))


def test_files_that_are_skipped_are_named_and_are_no_images(photos: Path, onward: Onward) -> None:
    """`check` found two broken headers, said nothing of them, and counted them as images."""
    (photos / "train/class0/1.png").write_bytes(b"no image")
    cut(photos / "train/class1/2.png")
    (photos / "val/class1/0.png").write_bytes(b"")
    found = onward("check", "config.yaml", "data.on_error=skip")
    assert found.code == 0, found.err
    said = comments(found)
    assert "# 6 images of 2 classes; 7 test images" in said
    first = f"image '{photos}/train/class0/1.png' cannot be decoded ("
    assert f"2 training images cannot be used, and others stand in for them: {first}" in said
    assert f"{photos}/train/class1/2.png' cannot be decoded (" in said
    assert f"1 of 8 test images will be left out: image '{photos}/val/class1/0.png' cannot be decoded (the file" in said


def test_a_broken_test_image_is_said_before_the_run_and_not_after_it(
    photos: Path, onward: Onward, fake_training: list[Path]
) -> None:
    cut(photos / "val/class0/3.png")
    words = f"there will be no linear probes: image '{photos}/val/class0/3.png' cannot be decoded"
    for command in ("check", "train"):
        found = onward(command, "config.yaml")
        assert found.code == 0, found.err
        assert words in found.out
        assert "or leave such images out with data.on_error=skip" in found.out
        assert words not in onward(command, "config.yaml", "evaluation.linear_probe=false").out
    assert len(fake_training) == 2


def test_train_says_once_which_files_others_stand_in_for(
    photos: Path, onward: Onward, fake_training: list[Path]
) -> None:
    (photos / "train/class0/1.png").write_bytes(b"no image")
    begun = onward("train", "config.yaml", "data.on_error=skip")
    assert begun.code == 0, begun.err
    assert begun.out.count("class0/1.png") == 1


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image of each part is looked at, as one of many is in a large data set."""
    monkeypatch.setattr(unreadable, "HEADERS_CHECKED", 1)
    monkeypatch.setattr(unreadable, "IMAGES_DECODED", 1)


@pytest.mark.usefixtures("small_sample")
@pytest.mark.parametrize(
    ("option", "listed"),
    [("--headers", ["train/class0/1.png", "val/class1/2.png"]),
     ("--all", ["train/class0/1.png", "train/class1/3.png", "val/class1/2.png"])],
)  # fmt: skip
def test_every_broken_file_is_listed_if_asked_for(photos: Path, onward: Onward, option: str, listed: list[str]) -> None:
    """One truncated file ended the run at step 8, the next one the next run."""
    for name in ("train/class0/1.png", "val/class1/2.png"):
        (photos / name).write_bytes(b"no image")
    cut(photos / "train/class1/3.png")
    assert onward("check", "config.yaml").code == 0
    found = onward("check", "config.yaml", option)
    assert found.code == 2
    assert f"error: {len(listed)} of 16 image files cannot be used: the lines above name them" in found.err
    lines = [line for line in found.out.splitlines() if "cannot be decoded" in line]
    assert [line.split("'")[1] for line in lines] == [f"{photos}/{name}" for name in listed]
    passed = onward("check", "config.yaml", option, "data.on_error=skip")
    assert passed.code == 0, passed.err
    assert passed.out.startswith(found.out), "the list, and then all that check prints"


def test_nothing_is_decoded_before_all_else_is_in_order(
    photos: Path, onward: Onward, assert_refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.commands.image_scan.unreadable", lambda *_, **__: pytest.fail("images were looked at"))
    assert_refused(onward("check", "config.yaml", "device=cuda", "--all"), "^device: ")


def test_data_that_are_no_files_have_none_that_is_broken(folder: Path, onward: Onward) -> None:
    found = onward("check", "config.yaml", "data={name: fashion_mnist_10k, batch_size: 4}", "--all")
    assert found.code == 0, found.err
    assert "# decoded 0 image files: 0 cannot be used" in found.out
