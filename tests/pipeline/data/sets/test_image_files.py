"""Many files as few arrays, folders without labels, and the block of memory that worker processes inherit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import DataConfig
from pipeline.data.sets import memory
from pipeline.data.sets.arrays import ArrayImages
from pipeline.data.sets.datasets import Splits, count_classes, open_dataset, open_labelled, preflight
from pipeline.data.sets.files import FileImages, FileNames, file_sizes, for_each_block
from pipeline.data.sets.memory import available_bytes
from pipeline.data.sets.shared import open_shared, share
from pipeline.errors import ConfigError, UserError


def write_images(folder: Path, names: list[str]) -> Path:
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9 + number, 12, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    names = ["train/a/1.png", "train/a/2.jpg", "train/b/x y.png", "train/b/ü/3.bmp", "val/a/9.png", "val/b/9.png"]
    return write_images(tmp_path / "photos", names)


def data(root: Path, **keys: object) -> DataConfig:
    return DataConfig(name="image_folder", root=str(root), batch_size=2, **keys)  # type: ignore[arg-type]


def test_names_come_back_as_they_were() -> None:
    odd = os.fsdecode(b"not \xff UTF-8.jpg")
    given = ["a.jpg", "", "b/ü.png", odd, "c"]
    names = FileNames.of("/root", given)
    assert [names.relative(i) for i in range(5)] == given
    for start in range(6):
        for stop in (None, *range(start, 6)):
            assert list(names.relatives(start, stop)) == given[start:stop]
    assert list(names) == [os.path.join("/root", name) for name in given]
    assert names[-1] == "/root/c"
    assert names[1:3] == ["/root/", "/root/b/ü.png"]
    for wrong in (5, -6):
        with pytest.raises(IndexError, match="5 files"):
            names[wrong]
    assert names.text.nbytes + names.ends.nbytes < 100


def test_sizes_of_files_and_one_that_is_gone(photos: Path) -> None:
    images = open_dataset(data(photos), "train")
    assert isinstance(images, FileImages)
    calls: list[tuple[int, int]] = []
    sizes = file_sizes(images.files, lambda done, count: calls.append((done, count)))
    assert sizes.tolist() == [os.path.getsize(path) for path in images.files]
    assert calls == [(4, 4)]
    os.unlink(images.files[2])
    assert file_sizes(images.files)[2] == 0, "which shows when it is opened, or another may stand in for it"


def test_every_file_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.sets.files.BLOCK", 7)
    done: list[int] = []
    told: list[int] = []
    for_each_block(lambda start, stop: done.extend(range(start, stop)), 100, lambda count, _: told.append(count))
    assert sorted(done) == list(range(100))
    assert told == [*range(7, 100, 7), 100]


@pytest.mark.parametrize("layout", ["flat", "below train"])
def test_a_folder_without_class_folders_has_no_labels(tmp_path: Path, layout: str) -> None:
    names = ["2.png", "1.jpg", "10.JPEG"]
    folder = write_images(tmp_path, names if layout == "flat" else [f"train/{name}" for name in names])
    images = open_dataset(data(folder), "train")
    assert [Path(images.name_of(i)).name for i in range(3)] == ["1.jpg", "10.JPEG", "2.png"]
    assert (images.num_classes, images.labels.tolist(), images.label(1)) == (0, [-1, -1, -1], -1)
    assert images.labels.dtype == np.int64
    assert preflight(Splits(data(folder))) == 3
    with pytest.raises(UserError, match="images of image_folder have no labels"):
        open_labelled(data(folder), "train")


def test_any_folder_can_be_read_without_labels(photos: Path) -> None:
    whole = data(photos / "train", split="unlabeled")
    images = open_dataset(whole, "train")
    assert (len(images), images.num_classes, count_classes(Splits(whole))) == (4, 0, 0)
    write_images(photos / "train", ["0.png", "deep/er/0.png"])
    assert len(open_dataset(whole, "train")) == 6
    assert len(open_dataset(data(photos, split="unlabeled"), "train")) == 6  # the training part where there is one
    with pytest.raises(
        ConfigError, match=r"data\.split: image_folder has no training part 'valid'. Allowed: unlabeled"
    ):
        open_dataset(data(photos, split="valid"), "train")
    with pytest.raises(UserError, match=r"data\.root '.*nowhere' is not a folder"):
        open_dataset(data(photos / "nowhere", split="unlabeled"), "train")


def test_files_that_lie_beside_class_folders_are_passed_over(photos: Path) -> None:
    write_images(photos, ["train/loose.png"])
    assert len(open_dataset(data(photos), "train")) == 4


@pytest.mark.parametrize("contents", [False, True])
def test_a_shared_data_set_is_the_same(photos: Path, contents: bool) -> None:
    images = open_dataset(data(photos), "train")
    descriptor = share(images, contents)
    assert descriptor is not None
    pixels = [images.pixels(i) for i in range(4)]
    (photos / "train" / "a" / "0.png").write_bytes(b"a newcomer that the workers must not see")
    if contents:
        os.unlink(images.name_of(0))
    try:
        for _ in range(2):
            again = open_dataset(data(photos), "train", shared=descriptor)
            assert [again.name_of(i) for i in range(4)] == [images.name_of(i) for i in range(4)]
            assert (again.labels.tolist(), again.num_classes) == ([0, 0, 1, 1], 2)
            for i in range(4):
                np.testing.assert_array_equal(again.pixels(i), pixels[i])
    finally:
        os.close(descriptor)
    np.testing.assert_array_equal(again.pixels(3), pixels[3])  # the memory stays for as long as it is used


def test_an_array_is_shared_whatever_its_strides() -> None:
    array = np.arange(5 * 3 * 4 * 6, dtype=np.int64).astype(np.uint8).reshape(5, 3, 4, 6).transpose(0, 2, 3, 1)
    images = ArrayImages(array, np.arange(5), 10, "x/train")
    descriptor = share(images, False)
    assert descriptor is not None
    again = open_shared(descriptor)
    os.close(descriptor)
    np.testing.assert_array_equal([again.pixels(i) for i in range(5)], array)
    assert again.pixels(2).flags.c_contiguous
    assert images.pixels(2).flags.c_contiguous
    assert (again.num_classes, again.label(3), again.name_of(4)) == (10, 3, "x/train[4]")


@pytest.mark.processes
def test_a_process_can_use_what_it_inherits(photos: Path) -> None:
    images = open_dataset(data(photos), "train")
    descriptor = share(images, True)
    assert descriptor is not None
    code = (
        "import sys; from pipeline.config import DataConfig; from pipeline.data.sets.datasets import open_dataset; "
        f"images = open_dataset(DataConfig(), 'train', shared={descriptor}); "
        "print(int(images.pixels(1).sum()), images.name_of(1), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, pass_fds=[descriptor], check=False)
    os.close(descriptor)
    assert done.stdout.split() == [str(int(images.pixels(1).sum())), images.name_of(1), "False"], done.stderr


def test_files_that_change_while_they_are_read_are_noticed(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = open_dataset(data(photos), "train")
    for wrong in (-1, 1):
        monkeypatch.setattr(
            "pipeline.data.sets.shared.file_sizes", lambda files, wrong=wrong: file_sizes(files) + wrong
        )
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(UserError, match=r"image '.*' changed while it was read"):
            share(images, True)
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # a mapping may live until it is collected


def test_too_little_memory_is_found_before_it_is_filled(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = data(photos, in_memory=True)
    assert preflight(Splits(kept)) == 4
    monkeypatch.setattr(memory, "available_bytes", lambda: 100)
    with pytest.raises(ConfigError, match=r"data\.in_memory: the files take 0\.0 GB.*are available.*in_memory=false"):
        preflight(Splits(kept))
    assert preflight(Splits(data(photos))) == 4
    assert preflight(Splits(DataConfig(in_memory=True))) == 10_000  # of an array nothing more is read


def test_the_limit_of_the_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:   700 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert available_bytes() == 700 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert available_bytes() == 700 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert available_bytes() == 4000
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    (tmp_path / "memory.max").unlink()
    assert available_bytes() is None
