"""`onward data pack` and `onward data verify`: what they write can be trained on, and nothing else passes for it."""

from __future__ import annotations

import io
import json
import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import launch.commands.pack
from pipeline.config import DataConfig
from pipeline.data.sets import pack_writer
from pipeline.data.sets.datasets import open_dataset, preflight
from pipeline.data.sets.image_folder import FolderImages
from pipeline.data.sets.index import difference, fingerprint, scan
from pipeline.data.sets.packed import PackedImages
from pipeline.errors import UserError

Onward = Callable[..., Any]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten training and two test images of several sizes and kinds; shards of four."""
    monkeypatch.setattr(pack_writer, "IMAGES_PER_SHARD", 4)
    monkeypatch.setattr(launch.commands.pack, "IMAGES_PER_SHARD", 4)
    rng = np.random.default_rng(5)
    exif = Image.Exif()
    exif[0x0112] = 6
    for split, count in (("train", 5), ("val", 1)):
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                shape = [(90, 60, 3), (40, 100, 3), (20, 30, 3), (64, 48), (33, 70, 3)][i]
                coarse = Image.fromarray(rng.integers(0, 256, (5, 5, *shape[2:]), dtype=np.uint8))
                image = coarse.resize((shape[1], shape[0]))
                image.save(folder / f"{i}.{'png' if i == 4 else 'jpg'}", quality=95, exif=exif if i == 2 else b"")
    return tmp_path / "photos"


def test_links_that_lead_out_are_packed_only_where_that_is_asked_for(
    source: Path, tmp_path: Path, onward: Onward
) -> None:
    private = tmp_path / "private"
    private.mkdir()
    shutil.copy(source / "train" / "cat" / "0.jpg", private / "a.jpg")
    (source / "train" / "dog" / "z").symlink_to(private)
    outcome = onward("data", "pack", source, tmp_path / "out")
    assert outcome.code == 2
    assert f"'{source}/train/dog/z/a.jpg' is reached by a link that leads out of '{source}'" in outcome.err
    assert f"to '{private}/a.jpg'" in outcome.err
    assert "--follow-links" in outcome.err
    assert not list(tmp_path.glob("out*"))
    assert onward("data", "pack", source, tmp_path / "out", "--follow-links").code == 0
    assert len(packed(tmp_path / "out")) == 11


def packed(root: Path, split: Any = "train") -> PackedImages:
    found = open_dataset(DataConfig(name="packed", root=str(root)), split)
    assert isinstance(found, PackedImages)
    return found


def tree(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def original(source: Path, split: str = "train") -> FolderImages:
    return FolderImages(source / split)


@pytest.mark.parametrize("kind", ["jpeg", "raw"])
def test_what_is_packed_is_what_was_there(source: Path, tmp_path: Path, onward: Onward, kind: str) -> None:
    out = tmp_path / "out"
    done = onward("data", "pack", source, out, "--format", kind, "--short-side", "32", "--workers", "3")
    assert done.code == 0, done.err
    assert f"10 training images packed into {out}" in done.out
    for split in ("train", "val"):
        images, copy = original(source, split), packed(out, "test" if split == "val" else "train")
        assert (len(copy), copy.labels.tolist(), copy.num_classes) == (len(images), images.labels.tolist(), 2)
        assert copy.classes == ["cat", "dog"]
        for index in range(len(images)):
            expected = pack_writer.shrink(images.pixels(index), 32)
            found = copy.pixels(index)
            assert found.shape == expected.shape
            assert min(found.shape[:2]) <= 32
            if kind == "raw":
                np.testing.assert_array_equal(found, expected)
            else:
                assert np.abs(found.astype(int) - expected).mean() < 4
            np.testing.assert_array_equal(np.asarray(copy.image(index)), found)
            assert images.files.relative(index) in copy.name_of(index)
    assert preflight(DataConfig(name="packed", root=str(out), batch_size=2)) == 10
    assert sorted(tree(out)) == sorted(
        ["manifest.json", "test-00000.bin", "test.npz", "train.npz", *(f"train-0000{i}.bin" for i in range(3))]
    )
    assert not (tmp_path / "out.partial").exists()
    assert onward("data", "verify", out).code == 0


def test_what_the_table_speaks_of_is_on_the_disk_before_it(
    source: Path, tmp_path: Path, onward: Onward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or after a power cut a whole table would stand beside half a shard."""
    flushed: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        flushed.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    assert onward("data", "pack", source, tmp_path / "out").code == 0
    shards = sorted(path.name for path in (tmp_path / "out").rglob("*.bin"))
    assert shards
    assert sorted(name for name in flushed if name.endswith(".bin")) == shards


def test_small_jpegs_are_taken_as_they_are(source: Path, tmp_path: Path, onward: Onward) -> None:
    onward("data", "pack", source, tmp_path / "out", "--short-side", "40")
    images, copy = original(source), packed(tmp_path / "out")
    same = [np.array_equal(images.pixels(i), copy.pixels(i)) for i in range(5)]
    assert same == [False, True, True, False, False]  # 60, 40 and 20 (turned) pixels, 48, and a PNG
    assert copy.pixels(2).shape == (30, 20, 3)


def test_the_number_of_workers_changes_nothing(source: Path, tmp_path: Path, onward: Onward) -> None:
    for workers in (1, 4):
        onward("data", "pack", source, tmp_path / f"out{workers}", "--short-side", "32", "--workers", workers)
    assert tree(tmp_path / "out1") == tree(tmp_path / "out4")


def test_any_data_set_of_a_configuration(tmp_path: Path, onward: Onward, folder: Path) -> None:
    (folder / "c.yaml").write_text("data: {name: fashion_mnist_10k, batch_size: 8}\n")
    assert onward("data", "pack", "c.yaml", "out", "--format", "raw").code == 0
    images, copy = open_dataset(DataConfig(), "train"), packed(Path("out"))
    assert len(copy) == 10_000
    for index in (0, 4095, 4096, 9999):
        np.testing.assert_array_equal(copy.pixels(index), images.pixels(index))
    assert copy.num_classes == 10
    assert len(packed(Path("out"), "test")) == 2_000


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
    """The disk, or the user, ends the writing in the image after so many."""
    encode, calls = pack_writer.encode, iter(range(10**6))

    def failing(*args: Any) -> Any:
        if next(calls) == after + 12:  # the estimate has looked at all of them
            raise error
        return encode(*args)

    monkeypatch.setattr(pack_writer, "encode", failing)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_the_same_command_goes_on_where_it_stopped(
    source: Path, tmp_path: Path, onward: Onward, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    out, options = tmp_path / "out", ("--short-side", "32", "--workers", "1")
    with monkeypatch.context() as patch:
        interrupted(patch, 6, error)
        done = onward("data", "pack", source, out, *options)
    assert done.code == (2 if isinstance(error, OSError) else 130)
    if isinstance(error, OSError):
        assert "cannot be written (No space left on device). Make room" in done.err
    assert not out.exists()
    other = onward("data", "pack", source, out, "--short-side", "16")
    assert other.code == 2
    assert "holds the beginning of another packed copy" in other.err
    first = (tmp_path / "out.partial" / "train-00000.bin").stat()
    assert onward("data", "pack", source, out, *options).code == 0
    assert (out / "train-00000.bin").stat().st_mtime_ns == first.st_mtime_ns  # it was not written again
    onward("data", "pack", source, tmp_path / "whole", *options)
    assert tree(out) == tree(tmp_path / "whole")


def test_a_shard_that_was_cut_short_is_written_again(
    source: Path, tmp_path: Path, onward: Onward, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "out", ("--short-side", "32", "--workers", "1")
    with monkeypatch.context() as patch:
        interrupted(patch, 9, OSError(5, "Input/output error"))
        onward("data", "pack", source, out, *options)
    shard = tmp_path / "out.partial" / "train-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert onward("data", "pack", source, out, *options).code == 0
    assert onward("data", "verify", out).code == 0


def test_a_source_that_changed_meanwhile_is_not_continued(
    source: Path, tmp_path: Path, onward: Onward, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch, 6, OSError(5, "Input/output error"))
        onward("data", "pack", source, tmp_path / "out", "--short-side", "32")
    (source / "train" / "cat" / "0.jpg").unlink()
    done = onward("data", "pack", source, tmp_path / "out", "--short-side", "32")
    assert (done.code, "of other images" in done.err) == (2, True)


def test_refusals(
    source: Path,
    tmp_path: Path,
    onward: Onward,
    assert_refused: Callable[[Any, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "there").mkdir()
    assert_refused(onward("data", "pack", source, tmp_path / "there"), "there' already exists. Give another folder")
    assert_refused(onward("data", "pack", tmp_path / "no.yaml", tmp_path / "out"), r"no\.yaml")
    assert_refused(onward("data", "pack", source, tmp_path / "out", "--format", "jpg"), "Did you mean 'jpeg'")
    (tmp_path / "bare").mkdir()
    assert_refused(onward("data", "pack", tmp_path / "bare", tmp_path / "out"), "holds no class folders. Images must")
    (tmp_path / "x.partial").mkdir()
    (tmp_path / "x.partial" / "letters.txt").write_text("mine")
    assert_refused(
        onward("data", "pack", source, tmp_path / "x"), r"x\.partial' holds something else \('letters.txt'\)"
    )
    victim = source / "train" / "dog" / "1.jpg"
    victim.write_bytes(victim.read_bytes()[:200])
    refused = onward("data", "pack", source, tmp_path / "out")
    assert_refused(refused, r"image '.*dog/1\.jpg' cannot be decoded")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    victim.unlink()
    assert_refused(onward("data", "pack", source, tmp_path / "y"), r"needs about .* MB, and 0\.0 MB are free")


def test_two_that_write_the_same(source: Path, tmp_path: Path, onward: Onward) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    with launch.commands.pack._held(partial):
        done = onward("data", "pack", source, tmp_path / "out")
    assert (done.code, "is being written by another process" in done.err) == (2, True)


def test_without_test_images(source: Path, tmp_path: Path, onward: Onward) -> None:
    done = onward("data", "pack", source / "train", tmp_path / "out", "--short-side", "32")
    assert "no test images were packed: " in done.out
    with pytest.raises(UserError, match="has no test images"):
        packed(tmp_path / "out", "test")


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def rewritten(out: Path, **columns: Any) -> None:
    """Another index, of which the manifest has size and digest."""
    import hashlib

    with np.load(out / "train.npz") as found:
        arrays = dict(found) | columns
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    (out / "train.npz").write_bytes(buffer.getvalue())
    known = {"bytes": len(buffer.getvalue()), "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
    changed(out / "manifest.json", lambda m: m["splits"]["train"]["index"].update(known))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda out: (out / "manifest.json").unlink(), r"is no packed data set: .*manifest\.json"),
    "no JSON": (lambda out: (out / "manifest.json").write_text("{"), r"manifest\.json' is damaged"),
    "of another version": (
        lambda out: changed(out / "manifest.json", lambda m: m.update(format="onward-packed-2")), "of another version",
    ),
    "a path that leads out": (
        lambda out: changed(out / "manifest.json", lambda m: m["splits"]["train"]["index"].update(name="../x.npz")),
        r"damaged or of another version: splits\.train\.index\.name",
    ),
    "a shard is missing": (lambda out: (out / "train-00001.bin").unlink(), r"train-00001\.bin' cannot be read"),
    "a shard is short": (lambda out: os.truncate(out / "train-00001.bin", 5), "has 5 bytes, and .* were packed"),
    "the index was changed": (
        lambda out: (out / "train.npz").write_bytes(bytes((out / "train.npz").stat().st_size)), "SHA-256",
    ),
    "too few rows": (lambda out: rewritten(out, start=np.zeros(3, np.int64)), "does not describe the 10 images"),
    "a place outside": (lambda out: rewritten(out, end=np.full(10, 10**9)), "points outside of the packed files"),
    "a shard that is not there": (lambda out: rewritten(out, shard=np.full(10, 3)), "points outside"),
    "two channels": (lambda out: rewritten(out, channels=np.full(10, 2)), "points outside"),
    "another height": (lambda out: rewritten(out, height=np.full(10, 7)), "points outside"),
    "no numbers": (lambda out: rewritten(out, label=np.full(10, 0.5)), "cannot be read"),
    "a label that cannot be": (lambda out: rewritten(out, label=np.full(10, 2)), "labels"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_copy_is_refused(
    source: Path, tmp_path: Path, onward: Onward, assert_refused: Callable[[Any, str], None], what: str
) -> None:
    out = tmp_path / "out"
    onward("data", "pack", source, out, "--format", "raw", "--short-side", "32")
    damage, message = DAMAGE[what]
    damage(out)
    assert_refused(onward("data", "verify", out), message)
    with pytest.raises(UserError, match=message):
        packed(out)


def test_bits_that_fell_over_are_found(
    source: Path, tmp_path: Path, onward: Onward, assert_refused: Callable[[Any, str], None]
) -> None:
    out = tmp_path / "out"
    onward("data", "pack", source, out, "--format", "raw", "--short-side", "32")
    content = bytearray((out / "train-00001.bin").read_bytes())
    content[7] ^= 1
    (out / "train-00001.bin").write_bytes(content)
    assert_refused(onward("data", "verify", out), r"train-00001\.bin' is damaged: its SHA-256")


def test_a_packed_copy_has_a_fingerprint(source: Path, tmp_path: Path, onward: Onward) -> None:
    for name, side in (("a", 32), ("b", 32), ("c", 16)):
        onward("data", "pack", source, tmp_path / name, "--short-side", side)
    a, b, c = (packed(tmp_path / name) for name in "abc")
    assert fingerprint(a) == fingerprint(b) != fingerprint(c)
    assert difference(scan(a), scan(c)) == "its pixels differ"
    assert a.manifest.splits["train"].source == fingerprint(original(source))


def test_training_on_it(source: Path, tmp_path: Path, onward: Onward, folder: Path, fake_training: list[Path]) -> None:
    assert onward("data", "pack", source, folder / "packed", "--short-side", "32").code == 0
    overrides = ["data.name=packed", "data.root=packed"]
    assert onward("check", "config.yaml", *overrides).code == 0
    assert onward("train", "config.yaml", *overrides).code == 0
    assert len(fake_training) == 1
    again = onward("data", "pack", "config.yaml", "twice")
    assert again.code == 0
    (folder / "c.yaml").write_text("data: {name: packed, root: packed}\n")
    assert "reads a packed data set already" in onward("data", "pack", "c.yaml", "thrice").err


@pytest.mark.parametrize("what", ["a place outside", "a shard that is not there", "two channels"])
def test_a_damaged_copy_of_jpegs_is_refused(
    source: Path, tmp_path: Path, onward: Onward, assert_refused: Callable[[Any, str], None], what: str
) -> None:
    onward("data", "pack", source, tmp_path / "out", "--short-side", "32")
    damage, message = DAMAGE[what]
    damage(tmp_path / "out")
    assert_refused(onward("data", "verify", tmp_path / "out"), message)


class Spy:
    """A mapped file that notes which bytes are expected."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._mapped = mapped
        self.ranges: list[tuple[int, int]] = []

    def madvise(self, advice: int, start: int, length: int) -> None:
        assert advice == mmap.MADV_WILLNEED
        self._mapped.madvise(advice, start, length)
        self.ranges.append((start, start + length))


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_the_system_is_told_which_bytes_come_next(source: Path, tmp_path: Path, onward: Onward, kind: str) -> None:
    assert onward("data", "pack", source, tmp_path / "out", "--format", kind, "--short-side", "32").code == 0
    images = packed(tmp_path / "out")
    spies = [Spy(mapped) for mapped in images._maps]
    images._maps = spies  # type: ignore[assignment]
    images.prefetch([9, 0, 3])
    for shard, index in ((2, 9), (0, 0), (0, 3)):
        start, end = (int(images._columns[name][index]) for name in ("start", "end"))
        assert any(first % mmap.PAGESIZE == 0 and first <= start < end == last for first, last in spies[shard].ranges)
    assert [len(spy.ranges) for spy in spies] == [2, 0, 1]
