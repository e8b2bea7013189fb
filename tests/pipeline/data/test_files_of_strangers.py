"""Data sets that somebody hands over: what a file is not is not tried, and what it announces is not taken on trust."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import resource
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from pipeline.data.npz import UNREADABLE, Expected, read_arrays
from pipeline.data.sets import memory
from pipeline.data.sets.decoding import FORMATS, decode, open_image
from pipeline.data.sets.folder_walk import EXTENSIONS, links_out_of
from pipeline.data.sets.headers import read_size
from pipeline.data.sets.idx import read_idx
from pipeline.data.sets.index import Index
from pipeline.data.sets.packed import (
    COLUMNS,
    PackedFile,
    PackedManifest,
    PackedSplit,
    PackSettings,
    open_packed,
    to_json,
)
from pipeline.errors import UserError

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(was here) print showpage\n%%EOF\n"
MEMORY = 1 << 30
"""Bytes that may be taken beyond what there is; what is announced here is far more."""


@pytest.fixture
def little_memory() -> Any:
    """Taking much more than is there ends in a `MemoryError`, and not in a killed process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_postscript_called_an_image_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given: ran.append(given))
    file = tmp_path / "cat.jpg"
    file.write_bytes(POSTSCRIPT)
    with Image.open(file) as image:  # which is what PIL would do with it
        assert image.format == "EPS"
    with pytest.raises(UserError, match=r"cat\.jpg' cannot be decoded \(not an image that can be read\)"):
        decode(POSTSCRIPT, str(file))
    with pytest.raises(UserError, match="not an image that can be read"):
        read_size(str(file))
    assert not ran


@pytest.mark.parametrize("kind", ["GIF", "ICNS", "PCX", "TGA", "MPEG", "PDF"])
def test_a_format_that_none_of_our_extensions_has_is_no_image(kind: str) -> None:
    buffer = io.BytesIO()
    image = Image.new("RGB", (16, 16))
    if kind == "MPEG":
        buffer.write(b"\x00\x00\x01\xb3\x01\x00\x10\x13" + bytes(64))
    else:
        image.save(buffer, kind)
    with pytest.raises(UserError, match="not an image that can be read"):
        decode(buffer.getvalue(), "x.png")


def test_every_extension_has_its_format() -> None:
    Image.init()
    assert {Image.EXTENSION[extension] for extension in EXTENSIONS} == set(FORMATS)
    for kind in FORMATS:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 6)).save(buffer, kind)
        assert decode(buffer.getvalue(), "x").shape == (6, 8, 3)
        buffer.seek(0)
        assert open_image(buffer).format == kind


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(array: Any, shape: tuple[int, ...] | None = None, text: str = "") -> bytes:
    """An `.npy` file whose header may announce another shape."""
    array = np.asarray(array)
    told = text or str({"descr": array.dtype.str, "fortran_order": False, "shape": shape or array.shape})
    head = told.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + array.tobytes()


NUMBERS = {"a": Expected(np.int64, 100)}


def test_arrays_are_read_as_numpy_would() -> None:
    for array in (np.arange(7), np.arange(7, dtype=">i8"), np.zeros(0, np.int64)):
        assert np.array_equal(read_arrays(npz(a=npy(array), other=b"x"), NUMBERS)["a"], array)
    rows = np.arange(12).reshape(3, 4)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.asfortranarray(rows))
    assert np.array_equal(read_arrays(buffer.getvalue(), {"a": Expected(np.int64, 12, axes=2)})["a"], rows)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npz(a=npy(np.arange(3), (2**50,))), "numbers, and 100 may be there"),
        (npz(a=npy(np.arange(101))), "numbers, and 100 may be there"),
        (npz(a=npy(np.arange(3), (-3,))), "numbers"),
        (npz(a=npy(np.arange(3), (4,))), "there are fewer"),
        (npz(a=npy(np.arange(3), (2,))), "there are more"),
        (npz(a=npy(np.arange(3), (2**62, 4, 4))), "may be there"),
        (npz(a=npy(np.arange(3.0))), "holds float64"),
        (npz(a=b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * (1 << 28)), "version"),
        (npz(a=npy([1], text=str({"descr": "|O", "fortran_order": False, "shape": (1,)}))), "Object|no numbers"),
        (npz(a=b"\x80\x04."), "magic|EOF"),
        (npz(b=npy([1])), "a.npy"),
        (b"PK", "zip"),
        (b"", "zip"),
    ],
    ids=[
        "2^50",
        "one more",
        "negative",
        "fewer",
        "more",
        "overflow",
        "floats",
        "long header",
        "objects",
        "pickle",
        "none",
        "cut",
        "empty",
    ],
)
def test_what_a_header_announces_is_compared_before_memory_is_taken(content: bytes, words: str) -> None:
    with pytest.raises(UNREADABLE, match=words):
        read_arrays(content, NUMBERS)


@pytest.mark.usefixtures("little_memory")
def test_zeros_that_pack_small_are_not_unpacked_beyond_what_may_be_there() -> None:
    bomb = npz(a=npy(np.zeros(1, np.int64), (1,)) + bytes(1 << 28))
    assert len(bomb) < 1 << 20
    with pytest.raises(ValueError, match="there are more"):
        read_arrays(bomb, NUMBERS)


def test_more_than_the_memory_is_refused_where_that_many_may_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.npz.available_bytes", lambda: 16)
    with pytest.raises(ValueError, match="announces 24 bytes, and 16 bytes of memory are available"):
        read_arrays(npz(a=npy(np.arange(3))), NUMBERS)


@pytest.mark.usefixtures("little_memory")
def test_an_index_of_a_run_that_announces_too_much_is_refused_in_words() -> None:
    text = np.frombuffer(b"onward-index-1", np.uint8)
    parts = {"format": npy(text), "labels": npy([0], (2**50,)), "sizes": npy([0]), "names": npy(text)}
    content = npz(**parts, name_ends=npy([0]), contents=npy(text), heights=npy([0]), widths=npy([0]))
    with pytest.raises(UserError, match=r"'data_index\.npz' is no index of a data set that can be read"):
        Index.from_bytes(content, "data_index.npz")


def packed_folder(root: Path, images: int, shape: tuple[int, ...]) -> Path:
    """A packed copy with one shard of a byte, and an index whose first column announces `shape`."""
    columns = {name: npy([0]) for name in (*COLUMNS, "name_ends")}
    ones = {"channels": npy([1]), "name_ends": npy([1]), "names": npy(np.zeros(1, np.uint8))}
    content = npz(**{**columns, **ones, "shard": npy([0], shape)})
    (root / "train.npz").write_bytes(content)
    (root / "train-00000.bin").write_bytes(b"\0")
    zeros = "0" * 64
    index = PackedFile(name="train.npz", bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    shard = PackedFile(name="train-00000.bin", bytes=1, sha256=hashlib.sha256(b"\0").hexdigest())
    split = PackedSplit(images=images, source=zeros, index=index, shards=(shard,))
    manifest = PackedManifest(
        name="x",
        settings=PackSettings(),
        classes=(),
        num_classes=0,
        images_per_shard=1,
        splits={"train": split},
        versions={},
    )
    (root / "manifest.json").write_text(to_json(manifest))
    return root


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(("images", "words"), [(1, "cannot be read"), (2**50, "in 1 bytes")])
def test_a_packed_index_that_announces_too_much_is_refused_in_words(images: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        open_packed(packed_folder(tmp_path, images, (2**50,)), "train")


def test_a_packed_folder_of_pipes_and_devices_is_refused_at_once(tmp_path: Path) -> None:
    root = packed_folder(tmp_path, 1, (1,))
    for name in ("train-00000.bin", "train.npz", "manifest.json"):
        (root / name).unlink()
        os.mkfifo(root / name)
        with pytest.raises(UserError, match=rf"{name}' cannot be read \(it is no ordinary file\)"):
            open_packed(root, "train")
        (root / name).unlink()
        (root / name).symlink_to("/dev/zero")
        with pytest.raises(UserError, match=rf"{name}' cannot be read \(it is no ordinary file\)"):
            open_packed(root, "train")


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("shape", "words"), [((2**31, 2**31, 2**31), "memory are available"), ((1, 2, 2), r"announces 1 x 2 x 2")]
)
def test_an_idx_file_is_not_unpacked_beyond_what_it_announces(
    shape: tuple[int, ...], words: str, tmp_path: Path
) -> None:
    content = b"\0\0\x08\x03" + struct.pack(">3I", *shape) + bytes(1 << 28)
    (tmp_path / "images.gz").write_bytes(gzip.compress(content, 1))
    with pytest.raises(UserError, match=words):
        read_idx(tmp_path / "images.gz", 3)


def test_an_idx_file_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "images")
    with pytest.raises(UserError, match="no ordinary file"):
        read_idx(tmp_path / "images", 3)


def cgroup(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)


def test_the_limits_of_the_first_version_of_control_groups_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_text("3:cpu,memory:/job/7\n0::/\n")
    (tmp_path / "meminfo").write_text("MemAvailable: 900000 kB\n")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    cgroup(tmp_path / "memory", memory__limit_in_bytes=str(2**63 - 4096), memory__usage_in_bytes="70")
    cgroup(tmp_path / "memory" / "job", memory__limit_in_bytes="9000", memory__usage_in_bytes="2000")
    assert memory.available_bytes() == 7000
    own = tmp_path / "memory" / "job" / "7"
    cgroup(own, memory__limit_in_bytes="5000", memory__usage_in_bytes="4000")
    assert memory.available_bytes() == 1000
    cgroup(own, memory__stat="cache 3000\ntotal_active_file 500\ntotal_inactive_file 1500\n")
    assert memory.available_bytes() == 3000, "files in the page cache make room"
    (tmp_path / "own").unlink()
    cgroup(tmp_path / "memory", memory__limit_in_bytes="600", memory__usage_in_bytes="100")
    assert memory.available_bytes() == 500, "a container may be shown its own group as the root"


def test_the_limit_of_a_group_above_counts_in_the_second_version_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_text("0::/job/7\n")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    cgroup(tmp_path / "job" / "7", memory__max="max", memory__current="10")
    cgroup(tmp_path / "job", memory__max="5000", memory__current="4000")
    assert memory.available_bytes() == 1000
    cgroup(tmp_path / "job", memory__stat="anon 3000\nfile 900\nactive_file 100\ninactive_file 200\n")
    assert memory.available_bytes() == 1300


def test_links_out_of_a_folder_are_found_and_those_within_are_not(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "cat", outside):
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(b"x")
    (root / "cat" / "b.jpg").symlink_to("a.jpg")
    (root / "cat" / "c.jpg").symlink_to(outside / "a.jpg")
    (root / "dog").symlink_to(outside)
    (root / "owl").symlink_to("cat")
    (tmp_path / "root-of-another").mkdir()
    (tmp_path / "root-of-another" / "a.jpg").write_bytes(b"x")
    (root / "cat" / "d.jpg").symlink_to(tmp_path / "root-of-another" / "a.jpg")
    names = [str(root / f"{name}.jpg") for name in ("cat/a", "cat/b", "cat/c", "cat/d", "dog/a", "owl/a")]
    found = dict(links_out_of(names, str(root)))
    assert {Path(name).relative_to(root).as_posix() for name in found} == {"cat/c.jpg", "cat/d.jpg", "dog/a.jpg"}
    assert found[str(root / "dog" / "a.jpg")] == str(outside / "a.jpg")
    (other := tmp_path / "by another name").symlink_to(root)
    assert not list(links_out_of([str(other / "cat" / "a.jpg")], str(other)))
