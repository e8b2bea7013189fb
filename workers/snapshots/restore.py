"""Restores stages from a snapshot: tensors and counters."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from safetensors import SafetensorError

from pipeline.errors import UserError
from pipeline.stage.stage import Stage
from pipeline.stage.state import restore_stage, state_misfit
from workers.run.files import RunDir
from workers.run.tensor_files import facts_of, open_tensors, read_tensors
from workers.snapshots.manifest import read_manifest

_log = logging.getLogger(__name__)


def restore(run: RunDir, steps: int, stages: Sequence[Stage]) -> None:
    """Load the state of `stages` from a snapshot; a stage that is not in it was not updated before it.

    Raises:
        UserError: a file does not match its stage.
    """
    if steps == 0:
        return
    folder = run.snapshot(steps)
    manifest = read_manifest(folder)
    for stage in stages:
        part = manifest.stages.get(stage.index)
        if part is None:
            continue
        try:
            with open_tensors(folder / part.file, run.path) as file:
                if (problem := state_misfit(stage, facts_of(file), part.counters)) is not None:
                    raise ValueError(problem)
            anew = restore_stage(stage, read_tensors(folder / part.file, run.path), part.counters)
        except (RuntimeError, KeyError, TypeError, ValueError, SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"'{folder / part.file}' does not fit stage {stage.index} ({reason})") from None
        if anew:
            _log.warning("stage %d: not in '%s', so it starts anew: online %s", stage.index, folder, ", ".join(anew))
