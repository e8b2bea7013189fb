"""`onward data pack` and `onward data verify`: a copy of a data set that is quicker to read, and whether it is whole.

The copy is written to `OUT.partial` and renamed when it is complete. After a stop at any moment, the same command
continues with the shard at which it stopped.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from launch.results.printing import print_lines
from pipeline.config import DataConfig
from pipeline.data.sets.datasets import ImageDataset, Split, open_dataset
from pipeline.data.sets.files import FileImages
from pipeline.data.sets.folder_walk import links_out_of
from pipeline.data.sets.index import fingerprint
from pipeline.data.sets.pack_writer import (
    IMAGES_PER_SHARD,
    estimate_bytes,
    is_complete,
    num_shards,
    versions,
    write_index,
    write_shard,
)
from pipeline.data.sets.packed import MANIFEST, PackedManifest, PackSettings, open_packed, to_json, verify
from pipeline.errors import UserError
from pipeline.ordinary_files import open_to_write, read_whole
from pipeline.validation.loading import LoadOptions, load_config
from workers.run.files import write_text

PLAN = "plan.json"
"""In the partial copy, what it is made of, so that only the same copy is continued."""
PLAN_BYTES = 1 << 16
SPLITS: tuple[Split, ...] = ("train", "test")


class _Stopped(Exception):
    """Another shard failed, or Ctrl-C."""


def pack(
    source: Path, out: Path, settings: PackSettings, workers: int, console: Console, follow_links: bool = False
) -> None:
    """Write a packed copy of a data set to `out`, which must not exist.

    Args:
        source: a configuration, whose `data` section is meant, or the folder of an image folder.
        out: a folder to be made.
        settings: what to do to the images.
        workers: threads; decoding, resizing and encoding release Python's lock.
        console: for the progress.
        follow_links: also pack files outside the data set's folder that links in it lead to.

    Raises:
        UserError: no data set, no room, no permission, an image that cannot be decoded, or links that lead out.
    """
    if out.exists():
        raise UserError(f"'{out}' already exists. Give another folder, or delete it")
    data = DataConfig(name="image_folder", root=str(source)) if source.is_dir() else _data_of(source)
    if data.name == "packed":
        raise UserError(f"'{source}' reads a packed data set already. Pack the original")
    images, notes = _open_splits(data)
    if not follow_links:
        _check_no_links_out(data, images)
    partial = out.with_name(f"{out.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _held(partial):
            _pack_into(partial, data, images, settings, workers, console)
            os.replace(partial, out)
            _tidy(out)
    except OSError as error:
        raise UserError(
            f"'{error.filename or partial}' cannot be written ({error.strerror or error}). "
            "Make room or give another folder; the same command goes on where it stopped"
        ) from None
    count = len(open_packed(out, "train"))
    text = f"{count} training images packed into {out}: train with data.name=packed data.root={out}"
    print_lines(console, *notes, text)


def _data_of(source: Path) -> DataConfig:
    """The data set of a configuration; nothing that it names is imported."""
    return load_config(source, (), LoadOptions(build=False)).data


def verify_packed(folder: Path, console: Console) -> None:
    """Compare every file with its digest; raises `UserError` naming the first that differs."""
    count = verify(folder)
    print_lines(console, f"{folder}: {count} files are as they were packed")


def _open_splits(data: DataConfig) -> tuple[dict[Split, ImageDataset], list[str]]:
    images: dict[Split, ImageDataset] = {"train": open_dataset(data, "train")}
    try:
        images["test"] = open_dataset(data, "test")
    except UserError as error:
        return images, [f"no test images were packed: {error}"]
    return images, []


def _check_no_links_out(data: DataConfig, images: dict[Split, ImageDataset]) -> None:
    """Raises if a link leads out of the data set: a copy is made to be given away, and may contain private files."""
    for dataset in images.values():
        if not isinstance(dataset, FileImages):
            continue
        root = dataset.files.root
        if data.root is not None and Path(root).absolute().is_relative_to(Path(data.root).absolute()):
            root = data.root
        out = list(links_out_of(dataset.files, root))
        if out:
            name, real = out[0]
            more = f", and {len(out) - 1} more files" if len(out) > 1 else ""
            raise UserError(
                f"'{name}' is reached by a link that leads out of '{root}', to '{real}'{more}: the copy would hold "
                "them. Take the links out, or give --follow-links"
            )


def _pack_into(
    partial: Path,
    data: DataConfig,
    images: dict[Split, ImageDataset],
    settings: PackSettings,
    workers: int,
    console: Console,
) -> None:
    sources = {split: fingerprint(dataset) for split, dataset in images.items()}
    _check_plan(partial, settings, sources)
    if (partial / MANIFEST).exists():  # all but the last step had been done
        return
    missing = [
        (split, number)
        for split, dataset in images.items()
        for number in range(num_shards(len(dataset)))
        if not is_complete(partial, split, number)
    ]
    _check_room(partial, images, settings, missing)
    _write_shards(partial, images, settings, missing, workers, console)
    splits = {split: write_index(partial, split, dataset, sources[split]) for split, dataset in images.items()}
    train = images["train"]
    manifest = PackedManifest(
        name=data.name,
        settings=settings,
        classes=tuple(getattr(train, "classes", ())),
        num_classes=train.num_classes,
        images_per_shard=IMAGES_PER_SHARD,
        splits=splits,
        versions=versions(),
    )
    write_text(partial / MANIFEST, to_json(manifest))


def _check_plan(partial: Path, settings: PackSettings, sources: dict[Split, str]) -> None:
    """Raises if the folder holds anything but the beginning of the same copy."""
    plan = settings.model_dump_json() + "".join(f"\n{split} {source}" for split, source in sources.items()) + "\n"
    path = partial / PLAN
    if not path.exists():
        if left := [entry.name for entry in partial.iterdir() if entry.name != _LOCK]:
            raise UserError(f"'{partial}' holds something else ('{left[0]}'). Delete it, or give another folder")
        write_text(path, plan)
    elif read_whole(path, PLAN_BYTES, partial) != plan.encode():
        raise UserError(
            f"'{partial}' holds the beginning of another packed copy: of other images, or with other settings. "
            "Delete it, or give another folder"
        )


def _check_room(
    partial: Path, images: dict[Split, ImageDataset], settings: PackSettings, missing: list[tuple[Split, int]]
) -> None:
    need = 0
    for split, dataset in images.items():
        shards = sum(1 for other, _ in missing if other == split)
        if shards:
            need += estimate_bytes(dataset, settings) * shards // num_shards(len(dataset))
    free = shutil.disk_usage(partial).free
    if need > free:
        raise UserError(
            f"the packed copy needs about {_gigabytes(need)}, and {_gigabytes(free)} are free in '{partial.parent}'. "
            "Make room, give another folder, or a smaller --short-side"
        )


def _write_shards(
    partial: Path,
    images: dict[Split, ImageDataset],
    settings: PackSettings,
    missing: list[tuple[Split, int]],
    workers: int,
    console: Console,
) -> None:
    stop = Event()
    columns = (TextColumn("packing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    total = sum(len(dataset) for dataset in images.values())
    left = sum(min(IMAGES_PER_SHARD, len(images[split]) - number * IMAGES_PER_SHARD) for split, number in missing)
    with Progress(*columns, console=console, transient=True) as progress, ThreadPoolExecutor(workers) as pool:
        task = progress.add_task("", total=total, completed=total - left)

        def packed() -> None:
            if stop.is_set():
                raise _Stopped
            progress.advance(task)

        waiting = [
            pool.submit(write_shard, partial, split, number, images[split], settings, packed)
            for split, number in missing
        ]
        try:
            done, _ = wait(waiting, return_when=FIRST_EXCEPTION)
        finally:  # also after Ctrl-C: threads that have begun finish the image they are at
            stop.set()
            pool.shutdown(cancel_futures=True)
        for future in done:
            future.result()


def _tidy(out: Path) -> None:
    """Remove the files that only the writing needed."""
    for path in (*out.glob(".*"), out / PLAN):
        path.unlink(missing_ok=True)


@contextmanager
def _held(partial: Path) -> Iterator[None]:
    """Holds a lock, so that no other process writes the same copy."""
    with open_to_write(partial / _LOCK, partial) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"'{partial}' is being written by another process. Wait for its end, or stop it") from None
        yield


_LOCK = ".lock"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
