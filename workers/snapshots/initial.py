"""The weights that the stages of a run begin with (`init_from`): in its directory, as a snapshot before the first step.

They are made once, before training (`workers.weights`). So every process reads the same, on hosts that do not have the
file, too, and after a restart that finds no snapshot; and the file may change or go.
"""

from __future__ import annotations

from collections.abc import Sequence

from safetensors import SafetensorError

from pipeline.errors import UserError
from pipeline.stage.stage import Stage
from pipeline.stage.state import Facts
from workers.run.files import RunDir
from workers.run.tensor_files import facts_of, tensors_of
from workers.snapshots.parts import LocalParts, OpenedPart, PartName, Parts


def begin(run: RunDir, stages: Sequence[Stage], parts: Parts | None = None) -> None:
    """Load the weights that the run begins with into those of `stages` that have any.

    Args:
        run: the run directory.
        stages: as they were drawn.
        parts: where the files are, if not in the run directory.

    Raises:
        UserError: a file is damaged, or does not fit its stage.
        TransferFailed: it cannot be fetched.
    """
    parts = parts or LocalParts(run)
    for stage in stages:
        if stage.config.init_from.path is None:
            continue
        path = PartName("initial", stage.index).path(run)
        try:
            with parts.opened_initial(stage.index) as part:
                _load(stage, part)
        except (RuntimeError, KeyError, TypeError, ValueError, SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"'{path}' does not fit stage {stage.index} ({reason})") from None
    for stage in stages:  # last, as the target of a run end to end is a copy of all blocks
        stage.restart_target()


def _load(stage: Stage, part: OpenedPart) -> None:
    own = {name: Facts.of(tensor) for name, tensor in stage.state_dict().items()}
    for name, facts in facts_of(part.tensors).items():
        if name not in own or own[name].shape != facts.shape:
            raise ValueError(f"'{name}' is {facts} there, and {own.get(name, 'nothing')} in the network")
    tensors = tensors_of(part.tensors)
    stage.load_state_dict(tensors, strict=False)
    stage.engine.load(tensors)  # which may keep finer copies of the weights
