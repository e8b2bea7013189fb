"""`onward data pack` and `onward data verify`: what they write can be trained on, and nothing else passes for it."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import launch.commands.pack
from pipeline.config import DataConfig
from pipeline.data.sets import pack_writer
from pipeline.data.sets.datasets import Splits, open_dataset, preflight
from pipeline.errors import UserError
from tests.launch.commands.packed_copies import Onward, original, packed, tree


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
    assert preflight(Splits(DataConfig(name="packed", root=str(out), batch_size=2))) == 10
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
