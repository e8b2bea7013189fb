"""The `final/` folder: every stage's tensors, and the backbone under torchvision's names.

safetensors only, so that reading them can run no code; the bytes are a function of the tensors, so
two runs that computed the same have the same digests.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from pipeline.backbones import merge_backbone
from pipeline.stage import Stage
from workers.run_files import RunDir, write_bytes


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write `tensors` atomically; returns the SHA-256 of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def save_stage(run: RunDir, stage: Stage, writes: bool = True) -> None:
    """Write everything a trained stage holds, and the linear probe that was trained along, if there was one.

    Args:
        run: where to.
        stage: what. All its replicas call this, for they may have to put their parts together.
        writes: whether this one is the one that writes.
    """
    tensors = stage.snapshot()
    if writes:
        save_tensors(run.stage(stage.index), tensors)
        if stage.online is not None and stage.online.probe is not None:
            save_tensors(run.probe(stage.index), stage.online.probe.weights())


def save_backbone(run: RunDir, num_stages: int) -> str:
    """Join the blocks of all stages into `final/backbone.safetensors`; returns its SHA-256."""
    blocks = {}
    for index in range(1, num_stages + 1):
        tensors = load_file(run.stage(index))
        blocks[index] = {k.removeprefix("block."): v for k, v in tensors.items() if k.startswith("block.")}
    return save_tensors(run.backbone, merge_backbone(blocks))
