"""All stages in one process: the algorithm in its plainest form, and the reference for the pipeline.

One generator per training mode. Each yields the stages' reports in order, as soon as a stage has finished the
step; the configuration selects one of them (`mode`, `precision.shared_scaler`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import isfinite

import torch
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.precision import LossScaler
from pipeline.stage.codecs import round_trip
from pipeline.stage.inputs import Batch
from pipeline.stage.report import StageReport
from pipeline.stage.stage import Stage


def build_stages(
    config: Config,
    steps_per_epoch: int,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    last: int | None = None,
) -> list[Stage]:
    """The stages of a run, in order, on one device: every one, or those up to stage `last`, which need no other."""
    count = last or config.num_stages
    stages = [Stage(config, index, steps_per_epoch, device, dtype) for index in range(1, count + 1)]
    end = stages[-1]
    if config.mode == "end_to_end" and end.target is not None:  # the target follows the whole network
        end.follow_with_target(nn.Sequential(*(stage.block for stage in stages)))
        end.remember_buffers()
    return stages


def step_function(
    config: Config, stages: Sequence[Stage], device: torch.device
) -> Callable[..., Iterator[StageReport]]:
    """The function below that `mode` and `precision.shared_scaler` ask for; it takes the arguments of `serial_step`.

    Args:
        config: of the run.
        stages: all of them, with the state of the snapshot that the run goes on from, if there is one.
        device: they compute on.
    """
    if config.mode == "end_to_end":
        return partial(end_to_end_step, scaler=_shared_scaler(stages, device))
    codec = config.link.codec
    if config.precision.shared_scaler == "reference":
        scaler = _shared_scaler(stages, device)
        assert scaler is not None  # it is refused without fp16
        return partial(shared_scaler_step, scaler=scaler, codec=codec)
    return partial(serial_step, codec=codec)


def serial_step(
    stages: Sequence[Stage],
    views: Batch,
    step: int,
    noise_levels: Sequence[float],
    labels: Tensor | None = None,
    codec: str = "none",
) -> Iterator[StageReport]:
    """One step of every stage: each reads the output that the stage before computed before its own update.

    In mode sequential the stages before the one that learns only run forward, and those after it do not run; a frozen
    stage only runs forward.

    Args:
        stages: in order.
        views: the input of the first stage, bytes `[V, B, S, S, 3]`; packed `[1, B, total]`, or a list of views, where
            they have several sizes.
        step: counted from 0.
        noise_levels: one per stage.
        labels: `[B]`, where an objective uses them.
        codec: encodes and decodes the activations between two stages (`link.codec`).
    """
    activations: Batch = views
    learner = stages[0].phases.learner(step)
    for stage, level in zip(stages[:learner], noise_levels, strict=False):
        if stage.index > 1:
            assert isinstance(activations, Tensor)  # a stage returns one
            activations = round_trip(codec, activations)
        if not stage.learns(learner):
            activations = stage.relay(activations, step, level)
            yield stage.relayed(step)
        else:
            activations = stage(activations, step, level)
            yield stage.update(step, labels)


def end_to_end_step(
    stages: Sequence[Stage],
    views: Batch,
    step: int,
    noise_levels: Sequence[float],
    labels: Tensor | None = None,
    scaler: LossScaler | None = None,
) -> Iterator[StageReport]:
    """The end-to-end baseline: one loss, at the last block, with its gradient through all blocks.

    Args:
        stages, views, step, noise_levels, labels: as `serial_step`.
        scaler: for fp16, of all stages' optimizers, because there is one loss.
    """
    last = stages[-1]
    if scaler is not None:
        for stage in stages:
            stage.scaler = None if stage.frozen else scaler
    first = stages[0].inputs
    shown = [first.prepared(view) for view in first.views(views, step)[:2]] if last.target is not None else None
    outputs: Batch = views
    for stage, level in zip(stages, noise_levels, strict=True):
        stage(outputs, step, level)
        outputs = stage.outputs
    for stage in stages[:-1]:
        stage.optimizer.zero_grad(set_to_none=True)
    last.backward(step, labels, shown, stages[:-1])
    finite = isfinite(last.read_loss()[0])
    if scaler is not None:
        yield from _finish_together(stages, step, scaler, finite)
        return
    for stage in stages:
        yield stage.finish(step, finite=finite)


def shared_scaler_step(
    stages: Sequence[Stage],
    views: Batch,
    step: int,
    noise_levels: Sequence[float],
    scaler: LossScaler,
    labels: Tensor | None = None,
    codec: str = "none",
) -> Iterator[StageReport]:
    """One step in fp16 as in the released code: one scaler for all losses, and one decision for all blocks.

    Args:
        stages, views, step, noise_levels, labels, codec: as `serial_step`.
        scaler: of all the stages' optimizers.
    """
    activations: Batch = views
    finite = True
    for stage, level in zip(stages, noise_levels, strict=True):
        if stage.index > 1:
            assert isinstance(activations, Tensor)  # a stage returns one
            activations = round_trip(codec, activations)
        if stage.frozen:
            activations = stage.relay(activations, step, level)
            continue
        stage.scaler = scaler
        activations = stage(activations, step, level)
        stage.backward(step, labels)
        finite &= isfinite(stage.read_loss()[0])
    yield from _finish_together(stages, step, scaler, finite)


def _finish_together(stages: Sequence[Stage], step: int, scaler: LossScaler, finite: bool) -> Iterator[StageReport]:
    """One decision for all: an overflow anywhere skips the step of every block."""
    moved = False
    if finite:
        scaler.unscale()
        for stage in (stage for stage in stages if not stage.frozen):
            stage.set_learning_rate(step)
            stage.prepare_gradients(step)
        moved = scaler.step()
    for stage in stages:
        yield stage.finish(step, apply=lambda: moved, finite=finite)


def _shared_scaler(stages: Sequence[Stage], device: torch.device) -> LossScaler | None:
    """One for all stages, where any is in fp16."""
    first = next((stage.scaler for stage in stages if stage.scaler is not None), None)
    if first is None:
        return None
    shared = LossScaler(device, [stage.optimizer for stage in stages if not stage.frozen])
    shared.scaler.load_state_dict(first.scaler.state_dict())  # where a snapshot had left it
    return shared
