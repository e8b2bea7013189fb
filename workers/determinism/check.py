"""Whether the steps of a process repeat themselves: when that is tried, and of which batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import torch

from pipeline.config import Config
from pipeline.data.sets.index import Index
from pipeline.errors import UserError
from pipeline.ordinary_files import read_whole
from workers.determinism.child import in_a_child
from workers.determinism.refusal import PLAIN, name_of, refusal
from workers.determinism.remembered import Remembered
from workers.determinism.step import trials_of
from workers.determinism.twice import TRIAL_SECONDS, differences
from workers.run.files import RunDir

INDEX_BYTES = 1 << 30
"""Of the largest index that is read: of hundreds of millions of images."""
_log = logging.getLogger(__name__)


def check_steps(config: Config, run: RunDir, stages: Sequence[int], device: torch.device) -> None:
    """Let every stage of this process compute one step twice from one state, unless that was done before.

    The step is computed in a process of its own, on random images or activations of the run's shapes, formats and
    threads, with junk freed in between; it has ended before a stage is built, and nothing of it reaches the run.
    Replicas compute their share of the batch; what they exchange is not tried, nor is an engine.

    Args:
        config: of the run.
        run: whose index of the data says how large the last batch of an epoch is.
        stages: of this process, which has not computed anything yet.
        device: of this process.

    Raises:
        ConfigError: a step does not repeat itself, or its process dies.
    """
    wanted = [stage for stage in stages if is_wanted(config, stage, device)]
    remembered = Remembered(config, device) if wanted else None
    for trial in trials_of(config, wanted, _rows(config, run, stages[0])) if wanted else ():
        assert remembered is not None
        if remembered.has(trial):
            continue
        started = time.monotonic()
        outcome = in_a_child(partial(differences, config, trial, device), TRIAL_SECONDS)
        if outcome.signal or outcome.result:
            raise refusal(config, trial, device, outcome)
        what = f"{name_of(trial)}: a step of {trial.rows} images, tried twice"
        if outcome.late or outcome.error:
            _log.warning("%s, came to no end: %s", what, outcome.error or f"not within {TRIAL_SECONDS:.0f} s")
            continue
        remembered.add(trial)
        _log.info("%s in %.1f s, repeats itself", what, time.monotonic() - started)


def is_wanted(config: Config, stage: int, device: torch.device) -> bool:
    """Whether a step of `stage` is to be tried."""
    if config.determinism.check != "auto":
        return config.determinism.check
    precision = config.stage(stage).precision
    return device.type != "cpu" or any(getattr(precision, key) != plain for key, plain in PLAIN.items())


def _rows(config: Config, run: RunDir, stage: int) -> list[int]:
    """Sizes of the batches of one process: of all steps but the last of an epoch, and of that one."""
    batch, sizes = config.data.batch_size, [config.data.batch_size // config.replicas_of(stage)]
    if not config.data.drop_last and run.data_index.is_file():
        with suppress(OSError, UserError):  # it only says which batches to try
            content = read_whole(run.data_index, INDEX_BYTES, run.path)
            images = len(Index.from_bytes(content, str(run.data_index), INDEX_BYTES).labels)
            sizes += [images % batch] if images % batch > 1 else []
    return sizes
