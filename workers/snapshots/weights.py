"""Writes the `final/` folder: the tensors of every stage, and the backbone under torchvision's names."""

from __future__ import annotations

from pipeline.backbones import merge_backbone
from pipeline.stage.stage import Stage
from pipeline.stage.state import stage_tensors
from workers.run.files import RunDir
from workers.run.tensor_files import open_tensors, save_tensors
from workers.snapshots.parts import LocalParts, PartName, Parts


def save_stage(run: RunDir, stage: Stage, writes: bool = True, parts: Parts | None = None) -> None:
    """Write all tensors of a trained stage, and its online linear probe, if there is one.

    Args:
        run: where the files are written.
        stage: to be called by all its replicas, because gathering a sharded state is a collective operation.
        writes: whether this replica writes the files.
        parts: where the files are kept, if not in the run directory.
    """
    tensors = stage_tensors(stage)
    if writes:
        parts = parts or LocalParts(run)
        parts.save(PartName("stage", stage.index), tensors)
        if stage.online is not None and stage.online.probe is not None:
            parts.save(PartName("probe", stage.index), stage.online.probe.weights())


def save_backbone(run: RunDir, num_stages: int) -> str:
    """Join the blocks of all stages into `final/backbone.safetensors`; returns its SHA-256."""
    blocks = {}
    for index in range(1, num_stages + 1):
        with open_tensors(run.stage(index), run.path) as file:
            names = [name for name in file.keys() if name.startswith("block.")]  # noqa: SIM118  # it is no dict
            blocks[index] = {name.removeprefix("block."): file.get_tensor(name) for name in names}
    return save_tensors(run.backbone, merge_backbone(blocks), root=run.path)
