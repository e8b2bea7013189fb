"""The index of a data set: equal for equal data wherever it lies, and in words what differs."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DataConfig
from pipeline.data.sets.arrays import ArrayImages
from pipeline.data.sets.datasets import open_dataset
from pipeline.data.sets.files import FileNames
from pipeline.data.sets.index import Index, difference, fingerprint, scan
from pipeline.errors import UserError


def write(folder: Path) -> Path:
    for name, size in (("a/1.jpg", 10), ("a/2.jpg", 20), ("b/1.jpg", 30), ("b/ü.jpg", 40)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    return folder


def index(folder: Path) -> Index:
    return scan(open_dataset(DataConfig(name="image_folder", root=str(folder)), "train"))


def array(shape: tuple[int, ...] = (5, 4, 4), labels: int = 0) -> ArrayImages:
    pixels = np.arange(np.prod(shape), dtype=np.int64).astype(np.uint8).reshape(shape)
    return ArrayImages(pixels, np.full(shape[0], labels), 10, "x/train")


def test_a_copy_has_the_same_fingerprint_wherever_it_lies(tmp_path: Path) -> None:
    first = write(tmp_path / "here")
    shutil.copytree(first, tmp_path / "there")
    for path in (tmp_path / "there").rglob("*"):
        os.utime(path, (1, 1))
    assert index(first).fingerprint == index(tmp_path / "there").fingerprint
    assert difference(index(first), index(tmp_path / "there")) is None
    assert len(index(first).fingerprint) == 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "a/2.jpg").write_bytes(bytes(21)), r"^'a/2.jpg' has 21 bytes now and had 20$"),
        (lambda f: (f / "a/2.jpg").unlink(), r"^'a/2.jpg' is gone; it has 3 images now and had 4$"),
        (lambda f: (f / "a/0.jpg").write_bytes(b"x"), r"^'a/0.jpg' is new; it has 5 images now and had 4$"),
        (lambda f: (f / "b/z.jpg").write_bytes(b"x"), r"^'b/z.jpg' is new; it has 5"),
        (lambda f: (f / "a/2.jpg").rename(f / "a/3.jpg"), r"^'a/2.jpg' is gone$"),
        (lambda f: (f / "b").rename(f / "c"), r"^'b/1.jpg' is gone$"),
        (lambda f: [(f / "0").mkdir(), (f / "0/x.jpg").write_bytes(b"x")], r"^'0/x.jpg' is new; it has 5"),
    ],
)
def test_the_first_thing_that_differs(tmp_path: Path, change: Callable[[Path], object], words: str) -> None:
    before = index(write(tmp_path))
    change(tmp_path)
    found = difference(before, index(tmp_path))
    assert found is not None
    assert re.search(words, found), found


def test_another_class_for_the_same_files(tmp_path: Path) -> None:
    before = index(write(tmp_path))
    after = Index(before.labels[::-1].copy(), before.files, before.sizes, "")
    assert difference(before, after) == "'a/1.jpg' is of class 1 now and was of class 0"


def test_another_order_of_the_same_files(tmp_path: Path) -> None:
    before = index(write(tmp_path))
    names = list(before.files.relatives())
    turned = Index(before.labels, FileNames.of("", [names[1], names[0], *names[2:]]), before.sizes, "")
    assert difference(before, turned) == "'a/1.jpg' is at another position"


def test_arrays_are_compared_by_their_pixels() -> None:
    assert difference(scan(array()), scan(array())) is None
    strided = ArrayImages(np.asfortranarray(array().array), array().labels, 10, "elsewhere")
    assert fingerprint(strided) == fingerprint(array())
    assert difference(scan(array()), scan(array((6, 4, 4)))) == "it has 6 images now and had 5"
    assert difference(scan(array()), scan(array((5, 2, 8)))) == "its pixels differ"
    assert difference(scan(array()), scan(array(labels=1))) == "its labels differ"
    changed = array()
    changed.array[3, 1, 2] ^= 1
    assert difference(scan(array()), scan(changed)) == "its pixels differ"


def test_files_against_an_array(tmp_path: Path) -> None:
    files = index(write(tmp_path))
    assert difference(files, scan(array())) == "it does not consist of files any more"
    assert difference(scan(array()), files) == "it consists of files now"


def test_there_and_back(tmp_path: Path) -> None:
    for found in (index(write(tmp_path)), scan(array())):
        again = Index.from_bytes(found.to_bytes(), "x")
        assert again.fingerprint == found.fingerprint
        assert difference(found, again) is None


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_a_damaged_index_is_refused_in_words(tmp_path: Path) -> None:
    good = index(write(tmp_path)).to_bytes()
    with np.load(io.BytesIO(good)) as found:
        parts = dict(found)
    cases = [
        b"", b"nothing", good[: len(good) // 2], npz(labels=np.zeros(1)),
        npz(**{**parts, "sizes": np.zeros(3, np.int64)}),
        npz(**{**parts, "labels": parts["labels"].astype(np.float32)}),
        npz(**{**parts, "labels": parts["labels"][:2]}),
        npz(**{**parts, "names": parts["names"][:5]}),
        npz(**{**parts, "format": np.frombuffer(b"onward-index-9", np.uint8)}),
        npz(**{**parts, "labels": np.asarray([{"code": 1}], dtype=object)}),
    ]  # fmt: skip
    for content in cases:
        with pytest.raises(UserError, match=r"'RUN/data_index\.npz' is no index of a data set"):
            Index.from_bytes(content, "RUN/data_index.npz")
    Index.from_bytes(npz(**parts), "x")


def test_what_is_no_data_set() -> None:
    with pytest.raises(TypeError, match="list is no data set"):
        scan([])


def test_a_gone_file_is_named(tmp_path: Path) -> None:
    images = open_dataset(DataConfig(name="image_folder", root=str(write(tmp_path))), "train")
    before = scan(images)
    (tmp_path / "b" / "1.jpg").unlink()
    changed = difference(before, scan(images))
    assert changed is not None
    assert "b/1.jpg" in changed
