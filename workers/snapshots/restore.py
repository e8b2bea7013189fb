"""Restores stages from a snapshot: tensors and counters."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from safetensors import SafetensorError

from pipeline.errors import UserError
from pipeline.stage.stage import Stage
from pipeline.stage.state import restore_stage, state_misfit
from workers.run.files import RunDir
from workers.run.tensor_files import facts_of, tensors_of
from workers.snapshots.initial import begin
from workers.snapshots.parts import LocalParts, OpenedPart, PartName, Parts

_log = logging.getLogger(__name__)


def restore(run: RunDir, steps: int, stages: Sequence[Stage], parts: Parts | None = None) -> None:
    """Load the state of `stages` from a snapshot; a stage that is not in it was not updated before it.

    Args:
        run: the run directory.
        steps: of the snapshot; 0 for none, but the weights that `init_from` gives.
        stages: to be restored.
        parts: where the parts are, if not in the run directory.

    Raises:
        UserError: a file does not match its stage.
        TransferFailed: it cannot be fetched.
    """
    if steps == 0:
        begin(run, stages, parts)
        return
    parts = parts or LocalParts(run)
    for stage in stages:
        path = PartName("snapshot", stage.index, steps).path(run)
        try:
            with parts.opened(steps, stage.index) as part:
                anew = [] if part is None else _restore(stage, part)
        except (RuntimeError, KeyError, TypeError, ValueError, SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"'{path}' does not fit stage {stage.index} ({reason})") from None
        if anew:
            names = ", ".join(anew)
            _log.warning("stage %d: not in '%s', so it starts anew: online %s", stage.index, path.parent, names)


def _restore(stage: Stage, part: OpenedPart) -> list[str]:
    """Load the state of one stage; returns what was not in the file."""
    if (problem := state_misfit(stage, facts_of(part.tensors), part.counters)) is not None:
        raise ValueError(problem)
    return restore_stage(stage, tensors_of(part.tensors), part.counters)
