"""Whether a run that continues has the data it began with: an index of them is kept in its directory.

`data.root` may change from start to start, and files in a folder may change; the images that are trained on may not.
The headers of image files are read when a run begins and never again; a run that continues compares names, sizes and
labels.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from pipeline.config import Config
from pipeline.data.sets.datasets import Splits
from pipeline.data.sets.decoding import silence_size_warnings
from pipeline.data.sets.files import FileImages
from pipeline.data.sets.headers import scan_headers
from pipeline.data.sets.index import MOST_BYTES, Index, difference, scan
from pipeline.errors import ConfigError, UserError
from pipeline.ordinary_files import read_whole
from workers.run.files import RunDir, write_bytes

INDEX_BYTES, INDEX_TIMES = 64 * 1024 * 1024, 8
"""Largest index that is read, in bytes and in times of the index of the data as they are: more is another data set."""
PATIENCE = 2.0
"""Seconds after which the user is shown what takes so long."""


def make_index(config: Config, splits: Splits) -> tuple[Index, list[str]]:
    """The index of the training set, and a sentence if some of it cannot be trained on.

    Raises:
        UserError: the data cannot be read; or, by its header, a file is no image (`data.on_error: fail`).
    """
    images = splits.train
    silence_size_warnings()
    if not config.data.scan_headers or not isinstance(images, FileImages):
        return scan(images, progress_line()), []
    headers = scan_headers(images.files, progress_line())
    return scan(images, headers=headers), _look_at(headers.problems, len(images), config.data.on_error)


def _look_at(problems: dict[int, str], count: int, on_error: str) -> list[str]:
    if not problems:
        return []
    first = next(iter(problems.values()))
    if on_error == "fail":
        more = f" {len(problems) - 1} more of the {count} files are no images either." if len(problems) > 1 else ""
        raise UserError(f"{first}.{more} With data.on_error=skip others are taken in their place")
    return [f"{len(problems)} of {count} files are no images, and others are taken in their place; the first: {first}"]


def keep_index(index: Index, run: RunDir) -> None:
    """Write the index into the run directory; raises `ConfigError` if it cannot be written."""
    try:
        write_bytes(run.data_index, index.to_bytes())
    except OSError as error:
        raise ConfigError(
            "run_dir", f"'{run.path}' cannot be written ({error.strerror})", "Give another run_dir=FOLDER"
        ) from None


def check_data(splits: Splits, run: RunDir, otherwise: str = "give another run_dir=FOLDER") -> None:
    """Compare the training set with the index of the run; a run without one is not checked.

    Args:
        splits: the data.
        run: that goes on.
        otherwise: what can be done where they cannot be brought back.

    Raises:
        ConfigError: other images, or other labels.
        UserError: the data, or the index, cannot be read.
    """
    if not run.data_index.is_file():
        return
    now = scan(splits.train, progress_line())
    changed = difference(_read(run, INDEX_BYTES + INDEX_TIMES * now.nbytes), now)
    if changed is not None:
        raise ConfigError(
            "data.root",
            f"the training set is not the one that the run in '{run.path}' began with: {changed}",
            f"Bring back what it was, or {otherwise}",
        )


def data_difference(there: RunDir, here: RunDir) -> str | None:
    """The first difference of the images that two runs began with; None where there is none, or one kept no index.

    Raises:
        UserError: an index cannot be read.
    """
    if not (there.data_index.is_file() and here.data_index.is_file()):
        return None
    return difference(*(_read(run, MOST_BYTES) for run in (there, here)))


def _read(run: RunDir, most: int) -> Index:
    try:
        content = read_whole(run.data_index, most, run.path)
    except OSError as error:
        raise UserError(f"'{run.data_index}' cannot be read ({error.strerror}). Delete it") from None
    return Index.from_bytes(content, str(run.data_index), most)


def progress_line() -> Callable[[int, int], None]:
    """Shows on a terminal how many files have been read, from the third second on."""
    started = time.monotonic()

    def show(done: int, count: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - started > PATIENCE:
            end = "\n" if done == count else ""
            print(f"\rlooking at the files of the data set: {done} of {count}", end=end, file=sys.stderr, flush=True)

    return show
