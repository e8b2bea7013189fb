"""Trains the stages from a snapshot to a step as the run did, and computes that step while it is watched.

It is the reference of `pipeline.serial` in its plainest form: the same feed, stages and steps, without observers,
snapshots or results. Stages behind the one that is asked for are not built, since nothing flows back from them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.config.run import StageOverrides
from pipeline.data.to_device import sent_to
from pipeline.errors import UserError
from pipeline.replicas import SOLO
from pipeline.serial import build_stages, step_function
from pipeline.stage.digests import StepDigests
from pipeline.stage.report import StageReport, StepNorms
from pipeline.stage.stage import Stage
from workers.feed import Feed, FeedBatch
from workers.feed.ahead import FeedOnDevice
from workers.feed.first_stage import device_augmentation
from workers.replaying.capture import Capture, on_host
from workers.replaying.modules import first_not_finite, norm_of, together
from workers.replaying.pictures import SeenImage, ranked, seen_images
from workers.replaying.record import ReplayedStep, StepTensors
from workers.run.compute import set_up_compute
from workers.run.files import RunDir
from workers.snapshots.restore import restore
from workers.topology.rendezvous import NoisePolicy, link_spec

OF_EMBEDDING = "norm of the loss's gradient at the embeddings of all views of the image"
OF_OUTPUT = "norm of the stage's output for all views of the image"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be replayed.

    Args:
        stage: from 1.
        step: counted from 0.
        start: steps that were done before the snapshot to begin with; 0 for the beginning of the run.
        keep: whether tensors are kept.
    """

    stage: int
    step: int
    start: int
    keep: bool


def replay_step(
    config: Config,
    run: RunDir,
    wanted: Wanted,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> tuple[ReplayedStep, StepTensors]:
    """Compute one step of one stage of a run again.

    Args:
        config: of the run, with the overrides of this machine.
        run: its directory, which stays as it is.
        wanted: which step of which stage.
        device: everything is computed on.
        progress: called with the steps that are done, and their number.

    Raises:
        UserError: there is no such step, the stage does not run at it, or the snapshot or the data cannot be read.
    """
    set_up_compute(config)
    config, notes = _alone(config, wanted.stage)
    with (
        Feed(config, wanted.start) as feed,
        closing(FeedOnDevice(feed, link_spec(config, 1).nbytes, device)) as batches,
    ):
        _check_step(wanted.step, feed.total_steps)
        whole = _needs_all(config)
        stages = build_stages(config, feed.steps_per_epoch, device, last=None if whole else wanted.stage)
        _check_reached(stages, wanted)
        restore(run, wanted.start, stages)
        for stage in stages:
            stage.skips.limit = sys.maxsize  # a step after which the run gave up is replayed, too
        one_step, augmented = step_function(config, stages, device), device_augmentation(config)
        noise = NoisePolicy(config, feed.steps_per_epoch)
        for batch, arrive in batches:
            labels = None if batch.labels is None else sent_to(torch.from_numpy(batch.labels), device)
            views = augmented(arrive(), batch)

            def compute(
                batch: FeedBatch = batch, views: Tensor = views, labels: Tensor | None = labels
            ) -> list[StageReport]:
                return list(one_step(stages, views, batch.step, noise.levels(batch.step), labels=labels))

            if batch.step == wanted.step:
                return _watched(
                    stages, wanted, _Batch(batch, views, labels, feed, config.mode == "end_to_end"), compute, notes
                )
            compute()
            progress(batch.step + 1 - wanted.start, wanted.step - wanted.start)
    raise AssertionError("the feed gives every step")


@dataclass(frozen=True)
class _Batch:
    """The batch of the step: as the feed made it, as stage 1 is given it, and whether one loss is of all stages."""

    fed: FeedBatch
    views: Tensor
    labels: Tensor | None
    feed: Feed
    one_loss: bool


def _alone(config: Config, stage: int) -> tuple[Config, tuple[str, ...]]:
    """The configuration with which one process computes, and why its bits may differ."""
    own, numbers = config.stage(stage), range(1, config.num_stages + 1)
    until = numbers if _needs_all(config) else range(1, stage + 1)
    notes = []
    shared = [index for index in until if config.stage(index).replicas > 1]
    if shared:
        notes.append(f"stage {shared[0]} had {config.stage(shared[0]).replicas} replicas, whose sums round differently")
    if any(config.stage(index).engine.kind != "torch" for index in until):
        notes.append("DeepSpeed stepped the weights, and here PyTorch's optimizer does")
    if own.precision.compile:
        notes.append("the step itself is computed without the compiler, so that its modules can be seen")
    whole, stages = config.mode == "end_to_end", dict[int, StageOverrides]()
    for index in numbers:
        plain = {"replicas": None, "device": None}
        # What is computed again in the backward pass has the same bits, and its modules would be called twice.
        again = {"memory": {"recompute": "none"}} if whole or index == stage else {}
        stages[index] = config.stages.get(index, StageOverrides()).model_copy(update={**plain, **again})
    metrics = config.metrics.model_copy(update={"norms_every": 0})
    alone = {"runtime": "serial", "replicas": 1, "processes": None, "stages": stages, "metrics": metrics}
    return config.model_copy(update=alone).with_torch_engines(), tuple(notes)


def _needs_all(config: Config) -> bool:
    """Whether what a stage learns depends on those behind it."""
    return config.mode == "end_to_end" or config.precision.shared_scaler == "reference"


def _check_reached(stages: Sequence[Stage], wanted: Wanted) -> None:
    learner = stages[0].phases.learner(wanted.step)
    if learner is not None and wanted.stage > learner:
        raise UserError(
            f"stage {wanted.stage} does not run at step {wanted.step}, at which stage {learner} learns alone "
            f"(mode=sequential): give --stage 1 to {learner}, or another --step"
        )


class _KeptNorms(StepNorms):
    """Keeps the gradients as they are before they are clipped: unscaled, of the whole batch."""

    def __init__(self, stage: Stage, keep: bool) -> None:
        super().__init__(stage.engine, 0)
        self._stage, self._keep = stage, keep
        self.norms: dict[str, float] = {}
        self.gradients: dict[str, Tensor] = {}

    def before_step(self, step: int) -> None:
        """The gradients of `step` are there, and nothing has been done with them."""
        self.take(1.0)

    def take(self, scale: float) -> None:
        """Those of a loss that was multiplied by `scale`."""
        for name, parameter in self._stage.named_parameters():
            if parameter.grad is not None:
                self.norms[name] = norm_of(parameter.grad) / scale
                if self._keep:
                    self.gradients[name] = on_host(parameter.grad) / scale


def _watched(
    stages: Sequence[Stage],
    wanted: Wanted,
    batch: _Batch,
    compute: Callable[[], list[StageReport]],
    notes: tuple[str, ...],
) -> tuple[ReplayedStep, StepTensors]:
    """Compute the step of the batch, with the stage watched."""
    stage, step = stages[wanted.stage - 1], wanted.step
    last = stages[-1] if batch.one_loss else stage
    stage.digests = StepDigests(1, SOLO, stage.compute.device)
    kept = stage.norms = _KeptNorms(stage, wanted.keep)
    weights = first_not_finite(stage.state_dict().items())
    scale = last.scaler.scaler.get_scale() if last.scaler else 1.0
    with Capture(stage, last.objective, scale, wanted.keep) as capture, _uncompiled(stages):
        reports = compute()
    report, of_loss = reports[wanted.stage - 1], reports[-1 if batch.one_loss else wanted.stage - 1]
    if not kept.norms:  # a loss that is not finite: the optimizer was not asked
        kept.take(scale)
    _put_parameters(capture, kept)
    learns = stage.learns(stage.phases.learner(step))
    norms = list(kept.norms.values())
    seen, measure = _seen(capture, batch)
    replayed = ReplayedStep(
        wanted.stage,
        step,
        batch.fed.epoch,
        wanted.start,
        learns=learns,
        loss=of_loss.loss,
        terms=of_loss.terms,
        objective=last.config.objective.kind if learns else "",
        learning_rate=report.learning_rate,
        skipped=report.skipped,
        gradient_norm=_norm(norms) if learns else None,
        modules=tuple(capture.modules.values()),
        forward=capture.forward,
        backward=capture.backward,
        last_calls=tuple(capture.last_calls) if capture.forward is not None else (),
        weights=weights,
        digests=report.digests,
        measure=measure,
        images=tuple(seen),
        notes=notes,
    )
    return replayed, _tensors(capture, kept, batch, stages[0]) if wanted.keep else StepTensors()


def _uncompiled(stages: Sequence[Stage]) -> AbstractContextManager[object]:
    """Hooks see the modules of a compiled stage only where its code runs as it is written."""
    compiled = any(stage.compute.config.compile for stage in stages)
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _put_parameters(capture: Capture, kept: _KeptNorms) -> None:
    """The norms of the gradients of parameters, at the modules that they belong to."""
    for name, norm in kept.norms.items():
        if (module := capture.modules.get(name.rpartition(".")[0])) is not None:
            module.parameters = together(module.parameters or 0.0, norm)


def _norm(parts: Sequence[float]) -> float:
    total = 0.0
    for part in parts:
        total = together(total, part)
    return total


def _seen(capture: Capture, batch: _Batch) -> tuple[list[SeenImage], str]:
    """The images of the batch in the order in which they are shown, and what they are ordered by."""
    rows = len(batch.fed.samples)
    given = () if capture.embeddings is None else capture.embeddings.views
    sizes = _row_norms([view.detach().cpu() for view in given] or capture.outputs, rows)
    gradients = list(capture.embedding_gradients.values())
    measures, measure = (_row_norms(gradients, rows), OF_EMBEDDING) if gradients else (sizes, OF_OUTPUT)
    broken = torch.zeros(rows, dtype=torch.bool)
    if capture.rows is not None and len(capture.rows) == rows:
        broken, measure = capture.rows, f"whether {capture.culprit} had a number that is not finite, then {measure}"
    order = ranked(measures, broken, sizes)
    return seen_images(batch.feed.images, batch.fed.samples, order, measures, broken), measure


def _row_norms(parts: Sequence[Tensor], rows: int) -> Tensor:
    """Of every row of all parts together."""
    squares = torch.zeros(rows, dtype=torch.float64)
    for part in parts:
        squares += part.double().flatten(1).square().sum(1)
    return squares.sqrt()


def _tensors(capture: Capture, kept: _KeptNorms, batch: _Batch, first: Stage) -> StepTensors:
    embeddings = {"samples": torch.from_numpy(batch.fed.samples.copy())}
    if batch.labels is not None:
        embeddings["labels"] = on_host(batch.labels)
    if (found := capture.embeddings) is not None:
        named = [*_numbered("view", found.views), *_numbered("target", found.targets)]
        named += [("patch", found.patch)] if found.patch is not None else []
        embeddings |= {name: on_host(tensor) for name, tensor in named}
    of_embeddings = {f"embedding/view_{number + 1}": g for number, g in sorted(capture.embedding_gradients.items())}
    views = [on_host(view) for view in first.inputs.views(batch.views, batch.fed.step)]
    return StepTensors(
        activations=capture.tensors,
        embeddings=embeddings,
        gradients={**kept.gradients, **of_embeddings, **capture.output_gradients},
        views=views,
    )


def _numbered(what: str, tensors: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
    return [(f"{what}_{number}", tensor) for number, tensor in enumerate(tensors, 1)]


def _check_step(step: int, total: int) -> None:
    if not 0 <= step < total:
        raise UserError(f"there is no step {step}. Give --step from 0 to {total - 1}")
