"""Whether a run that goes on is given the data it began with: an index of them lies in its folder.

`data.root` may change from start to start, and a folder may change by itself; what is trained on may not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from pipeline.config import Config
from pipeline.data.datasets import open_dataset
from pipeline.data.index import Index, difference, scan
from pipeline.errors import ConfigError
from workers.run_files import RunDir, write_bytes

PATIENCE = 2.0
"""Seconds after which the user is told what takes so long."""


def keep_index(config: Config, run: RunDir) -> None:
    """Write the index of the training set beside the run; raises `UserError` if the data cannot be read."""
    _write(run, scan(open_dataset(config.data, "train"), _progress()))


def check_data(config: Config, run: RunDir) -> None:
    """Compare the training set with the index of the run; a run without one is taken as it is.

    Raises:
        ConfigError: other images, or other labels.
        UserError: the data, or the index, cannot be read.
    """
    if not run.data_index.is_file():
        return
    earlier = Index.from_bytes(run.data_index.read_bytes(), str(run.data_index))
    changed = difference(earlier, scan(open_dataset(config.data, "train"), _progress()))
    if changed is not None:
        raise ConfigError(
            "data.root",
            f"the training set is not the one that the run in '{run.path}' began with: {changed}",
            "Bring back what it was, or give another run_dir=FOLDER",
        )


def _write(run: RunDir, index: Index) -> None:
    try:
        write_bytes(run.data_index, index.to_bytes())
    except OSError as error:
        raise ConfigError(
            "run_dir", f"'{run.path}' cannot be written ({error.strerror})", "Give another run_dir=FOLDER"
        ) from None


def _progress() -> Callable[[int, int], None]:
    """A line on a terminal, from the third second on."""
    started = time.monotonic()

    def show(done: int, count: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - started > PATIENCE:
            end = "\n" if done == count else ""
            print(f"\rlooking at the files of the data set: {done} of {count}", end=end, file=sys.stderr, flush=True)

    return show
