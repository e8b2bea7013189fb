"""Computes one step of a stage on random input with the shapes of the run, and checksums of all results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.data.augment.resolution import view_sizes
from pipeline.precision import LossScaler
from pipeline.serial import build_stages, end_to_end_step
from pipeline.shapes import view_shapes
from pipeline.stage.phases import Phases
from pipeline.stage.report import StageReport
from pipeline.stage.stage import Stage
from pipeline.stage.state import stage_tensors
from workers.topology.rendezvous import NoisePolicy, link_spec

STEPS_PER_EPOCH = 1
"""Of the checked run: the number of a step then equals its epoch, and kernels do not depend on it."""
PIECE = 1 << 24
"""Number of elements whose checksum is computed at once."""
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Trial:
    """A step to be checked.

    Args:
        stage: that computes it; 0 for all stages with one loss, as in mode end to end.
        rows: batch size.
        epoch: of the step, which determines the size of the views.
    """

    stage: int
    rows: int
    epoch: int


def trials_of(config: Config, stages: Sequence[int], rows: Sequence[int]) -> list[Trial]:
    """One step for every combination of shapes that `stages` of a run compute.

    Args:
        config: of the run.
        stages: of this process.
        rows: batch sizes.
    """
    trials = []
    for stage in (0,) if config.mode == "end_to_end" else stages:
        epochs: dict[tuple[int, ...], int] = {}
        for epoch in range(config.train.epochs if config.data.progressive else 1):
            epochs.setdefault(view_sizes(config.data, epoch, config.num_views), epoch)
        trials += [Trial(stage, count, epoch) for epoch in epochs.values() for count in rows]
    return trials


StepContext = Callable[[Sequence[Stage]], AbstractContextManager[object]]


def step_checksums(
    config: Config, trial: Trial, device: torch.device, context: StepContext = lambda stages: nullcontext()
) -> dict[str, int]:
    """Build the stage, compute the step, and return checksums of its results, in the order of computation.

    Args:
        config: of the run.
        trial: which step.
        device: it is computed on.
        context: is entered with the stages for the time of the step.
    """
    alone = _without_neighbours(config)
    if trial.stage:
        stages = [Stage(alone, trial.stage, STEPS_PER_EPOCH, device)]
    else:
        stages = build_stages(alone, STEPS_PER_EPOCH, device)
    first = stages[0].index
    step = Phases.of(alone, STEPS_PER_EPOCH).first(first) + trial.epoch
    batch = random_batch(alone, first, trial, device)
    labels = (torch.arange(trial.rows) % 2).to(device) if config.uses_labels else None
    levels = NoisePolicy(alone, STEPS_PER_EPOCH).levels(step)
    sums: dict[str, int] = {}
    with context(stages):
        if trial.stage:
            forward = stages[0].relay if stages[0].frozen else stages[0]
            sums["what it sends"] = checksum(forward(batch, step, levels[first - 1]))
            reports = [StageReport(frozen=True) if stages[0].frozen else stages[0].update(step, labels)]
        else:
            scaled = [stage.optimizer for stage in stages if stage.scaler is not None]
            shared = LossScaler(device, scaled) if scaled else None
            reports = list(end_to_end_step(stages, batch, step, levels, labels, shared))
    losses = [report.loss for report in reports if report.loss is not None]
    sums["the loss"] = checksum(torch.tensor(losses, dtype=torch.float64))
    for stage in stages:
        named = {f"the gradient of {name}": p.grad for name, p in stage.named_parameters() if p.grad is not None}
        for name, tensor in {**named, **stage_tensors(stage)}.items():
            sums[f"{name} of stage {stage.index}"] = checksum(tensor)
    return sums


def checksum(tensor: Tensor) -> int:
    """A checksum of the bits of a tensor and their positions; integers, so that no order of summation matters."""
    flat = tensor.detach().contiguous().flatten()
    if flat.is_complex():
        flat = torch.view_as_real(flat).flatten()
    bits = flat.view(INTEGERS[flat.element_size()])
    total = 0
    for start in range(0, len(bits), PIECE):
        piece = bits[start : start + PIECE].to(torch.int64)
        places = torch.arange(start + 1, start + len(piece) + 1, device=piece.device)
        total += int((piece * (2 * places + 1)).sum())
    return total % 2**64


def _without_neighbours(config: Config) -> Config:
    """The configuration without replicas, engines and devices per stage, which need other processes."""
    plain: dict[str, object] = {"replicas": None, "device": None}
    stages = {index: overrides.model_copy(update=plain) for index, overrides in config.stages.items()}
    return config.model_copy(update={"replicas": 1, "stages": stages}).with_torch_engines()


def random_batch(config: Config, index: int, trial: Trial, device: torch.device) -> list[Tensor]:
    """One tensor per view: bytes `[B, S, S, 3]` for stage 1, else activations with the dtype of the previous stage."""
    source = torch.Generator(device).manual_seed(config.seed)
    sizes = view_sizes(config.data, trial.epoch, config.num_views)
    shapes = [(trial.rows, *shape) for shape in view_shapes(config, index, sizes)]
    if index == 1:
        return [torch.randint(0, 256, s, generator=source, device=device, dtype=torch.uint8) for s in shapes]
    dtype = link_spec(config, index).dtype
    return [torch.randn(s, generator=source, device=device, dtype=dtype) for s in shapes]
