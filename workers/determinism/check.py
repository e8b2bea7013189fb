"""Checks that the steps of a process are deterministic: for which stages, and on which batch sizes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch

from pipeline.config import Config
from pipeline.data.sets.index import MOST_BYTES, Index
from pipeline.errors import UserError
from pipeline.ordinary_files import read_whole
from workers.determinism.refusal import PLAIN, name_of, refusal
from workers.determinism.step import trials_of
from workers.determinism.trial import TRIAL_SECONDS, differing_results
from workers.determinism.verified import VerifiedSteps
from workers.run.files import RunDir
from workers.run.no_kernel import operation_of

_log = logging.getLogger(__name__)


def check_steps(
    config: Config,
    run: RunDir,
    stages: Sequence[int],
    device: torch.device,
    note: Callable[[str], object] = _log.warning,
) -> None:
    """Compute one step of every stage twice from the same state and compare them, unless that was done before.

    The step is computed in a process of its own, on random images or activations with shapes, formats and threads of
    the run, and with freed memory overwritten in between. It ends before a stage is built, so it cannot affect the run.
    Replicas compute their rows of the batch; collectives between them and engines are not checked.

    Args:
        config: of the run.
        run: its index of the data determines the size of the last batch of an epoch.
        stages: of this process, which must not have computed anything yet.
        device: of this process.
        note: called with a sentence about a step that could not be tried.

    Raises:
        ConfigError: a step is not deterministic, uses an operation that cannot be, or its process dies.
    """
    wanted = [stage for stage in stages if needs_check(config, stage, device)]
    verified = VerifiedSteps(config, device) if wanted else None
    for trial in trials_of(config, wanted, _rows(config, run, stages[0])) if wanted else ():
        assert verified is not None
        if verified.has(trial):
            continue
        started = time.monotonic()
        outcome = differing_results(config, trial, device)
        if outcome.signal or outcome.result or operation_of(outcome.error):
            raise refusal(config, trial, device, outcome)
        subject = f"{name_of(trial)}: a step of {trial.rows} images, tried twice"
        if outcome.late or outcome.error:
            note(f"{subject}, came to no end: {outcome.error or f'not within {TRIAL_SECONDS:.0f} s'}")
            continue
        verified.add(trial)
        _log.info("%s in %.1f s, repeats itself", subject, time.monotonic() - started)


def needs_check(config: Config, stage: int, device: torch.device) -> bool:
    """Whether a step of `stage` is to be checked."""
    if config.determinism.check != "auto":
        return config.determinism.check
    if config.determinism.level == "off":
        return False
    precision = config.stage(stage).precision
    return device.type != "cpu" or any(getattr(precision, key) != plain for key, plain in PLAIN.items())


def _rows(config: Config, run: RunDir, stage: int) -> list[int]:
    """Batch sizes of one process: of all steps but the last of an epoch, and of that one."""
    batch, sizes = config.data.batch_size, [config.data.batch_size // config.replicas_of(stage)]
    if not config.data.drop_last and run.data_index.is_file():
        with suppress(OSError, UserError):  # it only decides which sizes are checked
            content = read_whole(run.data_index, MOST_BYTES, run.path)
            images = len(Index.from_bytes(content, str(run.data_index)).labels)
            sizes += [images % batch] if images % batch > 1 else []
    return sizes
