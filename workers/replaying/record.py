"""What is known of a replayed step, and the folder that it is written to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.stage.digests import DigestName
from workers.replaying.modules import CallNumbers, ModuleNumbers, as_json
from workers.replaying.pictures import SeenImage, write_pictures
from workers.run.files import write_json
from workers.run.tensor_files import save_tensors

FORMAT = "onward-replay-1"


@dataclass(frozen=True)
class ReplayedStep:
    """One step of one stage.

    Args:
        stage: from 1.
        step, epoch: counted from 0.
        start: steps that were done before the snapshot from which it was computed; 0 for the beginning of the run.
        learns: whether the stage is updated at this step; if not, it only ran forward and has no loss.
        loss: as it was minimised; None where the stage has none.
        terms: the named parts of the loss.
        objective: its kind; empty where the stage has none.
        learning_rate: of this step.
        skipped: the loss or a gradient was not finite, and nothing moved.
        gradient_norm: of all its parameters, before it is clipped.
        modules: in the order in which they were called.
        forward, backward: where the first number that is not finite came from, forward and back; None if all are.
        last_calls: of modules that call no other, up to the one behind `forward`; empty if all numbers are.
        weights: the first weight or buffer that is not finite before the step.
        digests: of this step, as `digests.every` records them.
        measure: what the images are ordered by.
        images: of the batch, in that order.
        notes: why bits may differ from those of the run by right.
    """

    stage: int
    step: int
    epoch: int
    start: int
    _: KW_ONLY
    learns: bool
    loss: float | None
    terms: Mapping[str, float]
    objective: str
    learning_rate: float
    skipped: bool
    gradient_norm: float | None
    modules: tuple[ModuleNumbers, ...]
    forward: str | None
    backward: str | None
    last_calls: tuple[CallNumbers, ...]
    weights: str | None
    digests: Mapping[DigestName, str]
    measure: str
    images: tuple[SeenImage, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary; a number that is not finite is its name, as JSON has none."""
        plain = {
            key: as_json(value)
            for key, value in vars(self).items()
            if key not in ("terms", "modules", "last_calls", "images", "digests", "notes")
        }
        return {
            **plain,
            "terms": {name: as_json(value) for name, value in self.terms.items()},
            "digests": dict(self.digests),
            "notes": list(self.notes),
            "last_calls": [call.to_json() for call in self.last_calls],
            "modules": [module.to_json() for module in self.modules],
            "images": [{key: as_json(value) for key, value in asdict(image).items()} for image in self.images],
        }


@dataclass
class StepTensors:
    """The tensors of a replayed step, on the host.

    Args:
        activations: `NAME/CALL/input` and `NAME/CALL/output` of the block, the head and what these two call.
        embeddings: `view_N`, `target_N`, `patch` `[B, D]`; `labels` `[B]`; `samples`, the images' numbers, `[B]`.
        gradients: of parameters by their names; `embedding/view_N`; `output/NAME/CALL` of what `activations` has.
        views: uint8 `[B, S, S, 3]` each: the images as stage 1 was given them.
    """

    activations: dict[str, Tensor] = field(default_factory=dict)
    embeddings: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    views: list[Tensor] = field(default_factory=list)


def write_dump(folder: Path, step: ReplayedStep, tensors: StepTensors, more: Mapping[str, Any]) -> None:
    """Write everything into `folder`, which is made if it is not there.

    Args:
        folder: the place.
        step, tensors: that were computed.
        more: further entries of `step.json`.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / "activations.safetensors", tensors.activations)
    save_tensors(folder / "embeddings.safetensors", tensors.embeddings)
    save_tensors(folder / "gradients.safetensors", tensors.gradients)
    write_pictures(folder / "images", step.images, tensors.views)
    write_json(folder / "step.json", {"format": FORMAT, **step.to_json(), **more})
