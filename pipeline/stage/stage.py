"""One stage: a block, its head, its loss and its optimizer. Pure: no process, no clock, no socket.

The serial loop and the stage worker use this same class, which is why a pipelined run equals the
serial one to the bit. A step is two calls: `forward` gives what the next stage needs as early as
possible, `update` then learns from the local loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import isfinite

import torch
from torch import Tensor, nn

from pipeline.backbones import build_block
from pipeline.backbones.heads import Head, build_head
from pipeline.config import Config
from pipeline.config.model import ModuleConfig
from pipeline.config.objectives import BarlowTwinsConfig, BYOLConfig, CustomConfig
from pipeline.data.packing import pack
from pipeline.engines import build_engine
from pipeline.measures.online import OnlineMeasures
from pipeline.objectives import Embeddings, Objective, build_objective
from pipeline.optim import build_schedule
from pipeline.precision import Compute, LossScaler
from pipeline.randomness import seeded_forward
from pipeline.replicas import SOLO, ReplicaGroup, gather_rows, synchronise_batch_norms
from pipeline.shapes import block_output, channels_of
from pipeline.stage.inputs import Batch, StageInputs
from pipeline.stage.noise import add_noise, standard_normal
from pipeline.stage.phases import Phases
from pipeline.stage.report import StageReport, StepNorms
from pipeline.stage.skipped_steps import KeptBuffers, SkipCounter
from pipeline.stage.spans import Spans, no_spans
from pipeline.stage.target_network import Follower, Target


class Stage(nn.Module):
    """Stage `index` (from 1) of a run.

    Args:
        config: the whole run's configuration.
        index: which block.
        steps_per_epoch: the schedule's unit of time.
        device, dtype: where and in what precision it computes.
        team: the replicas that share its batch. Each is given its own rows of every view, and all of them together
            compute what one would of the whole batch; every method then waits for the others to call it too.
    """

    def __init__(
        self,
        config: Config,
        index: int,
        steps_per_epoch: int,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        team: ReplicaGroup = SOLO,
    ) -> None:
        super().__init__()
        mine = config.stage(index)
        device = device or torch.device("cpu")
        self.index, self.config, self.noise, self.team = index, mine, mine.noise, team
        self._seed, self._may_draw = config.seed, isinstance(config.model, ModuleConfig)
        self.phases = Phases.of(config, steps_per_epoch)
        self.compute = Compute(mine.precision, device, dtype)
        self.inputs, self._has_patch = StageInputs(config, index, steps_per_epoch, self.compute), config.has_patch
        self._build(config, index, device, dtype)
        self.gradient_divisor = (
            mine.objective.reference_world_size if isinstance(mine.objective, BarlowTwinsConfig) else 1
        )
        self.schedule: Callable[[int], float] = build_schedule(
            mine.optimizer, config.data.batch_size, config.train.epochs, steps_per_epoch
        )
        trained = nn.ModuleDict({n: m for n, m in self.named_children() if n in ("block", "head", "objective")})
        self.engine = build_engine(mine, trained, team, device)
        self.optimizer = self.engine.optimizer
        self.scaler = LossScaler(device, [self.optimizer]) if mine.precision.dtype == "fp16" else None
        self.draw_noise: Callable[..., Tensor] = lambda x, *key: standard_normal(x, config.seed, *key)
        self.skips = SkipCounter(index, config.train.max_skipped)
        self.norms = StepNorms(self.engine, config.metrics.norms_every if team.rank == 0 else 0)
        self.span: Spans = no_spans
        """Told what begins and ends within a step, set by who drives the stage."""
        self.online: OnlineMeasures | None = None
        """What is measured beside the training, set by who drives the stage; never part of its state dict."""
        self.outputs: list[Tensor] = []
        """Of the last `forward`, one a view, with their graph; what the loss is computed from."""
        self._target_inputs: list[Tensor] = []
        self._loss: tuple[Tensor, dict[str, Tensor]] | None = None
        self.remember_buffers()

    def _build(self, config: Config, index: int, device: torch.device, dtype: torch.dtype) -> None:
        mine = config.stage(index)
        self.block = build_block(config, index)
        self.head: Head | None = None
        self.objective: Objective | None = None
        self.target: Target | None = None
        self._follower: Follower | None = None
        if config.mode != "end_to_end" or index == config.num_stages:
            self.head = build_head(mine.head, channels_of(block_output(config, index)), config.seed, index)
            self.objective = build_objective(mine.objective, self.head.embedding_width, config.seed, index)
            if isinstance(mine.objective, BYOLConfig):
                self.follow_with_target(self.block)
        # Not those of the objective: it sees the whole batch on every replica.
        synchronise_batch_norms((self.block, self.head, self.target), self.team)
        self.to(device=device, dtype=dtype)
        self.train()
        # In a tuple, because a module that is an attribute would stand twice in the state dict.
        self._run = tuple(self.compute.prepare(m) for m in (self.block, self.head) if m is not None)

    def forward(self, batch: Batch, step: int, noise_level: float) -> Tensor:
        """Every view through the block, one after the other (batch norm is per view), and the noise.

        Args:
            batch: images as bytes `[V, B, S, S, 3]`, activations `[V, B, C, H, W]` or `[V, B, N, D]`, views of several
                sizes packed as `[1, B, total]`; or a list of views. Detached except end to end.
            step: keys the noise, and says how large the views are.
            noise_level: standard deviation of the noise; 0 for none.

        Returns:
            The detached, contiguous activations for the next stage, as they came.
        """
        self._buffers_kept.keep()
        self.outputs, self._target_inputs = [], []
        for number, view in enumerate(self.inputs.views(batch, step), 1):
            x = self.inputs.prepared(view)
            if self.target is not None and number <= 2:
                self._target_inputs.append(x.detach())
            if self.noise.placement == "input":
                x = self._noised(x, step, number, noise_level)
            with self.span(f"view {number}"), self._keyed("forward", step, number):
                output = self._through_block(x)
            if self.online is not None and self.training:
                self.online.collect(number, output)
            if self.noise.placement == "output":
                output = self._noised(output, step, number, noise_level)
            self.outputs.append(output)
        return pack([output.detach() for output in self.outputs], self.inputs.packed)

    @torch.no_grad()
    def relay(self, batch: Batch, step: int, noise_level: float) -> Tensor:
        """As `forward`, for a block that is trained and frozen: running statistics, and nothing is kept."""
        self.eval()
        activations: Tensor = self(batch, step, noise_level)
        self.outputs, self._target_inputs = [], []
        return activations

    def trunk(self, images: Tensor) -> Tensor:
        """The block alone, without noise: `[B, C, H, W]`, or bytes `[B, S, S, 3]`, to maps or tokens `[B, N, D]`."""
        return self._through_block(self.inputs.prepared(images))

    def features(self, activations: Tensor) -> Tensor | None:
        """What the head makes of the block's output before it projects, `[B, F]`; None where there is no head."""
        if self.head is None:
            return None
        with self.compute.autocast():
            features: Tensor = self.head.features(activations)
        return features

    def update(self, step: int, labels: Tensor | None = None) -> StageReport:
        """Head, loss, backward and optimizer step on what `forward` has just computed.

        Raises:
            TrainingError: the loss was not finite too many times in a row.
        """
        with self.span("update"):
            self.backward(step, labels)
            return self.finish(step)

    def backward(self, step: int, labels: Tensor | None = None, target_inputs: list[Tensor] | None = None) -> Tensor:
        """Compute the loss and its gradients, and keep both until `finish`.

        Args:
            step: of the run.
            labels: `[B]`, of the whole batch, for an objective that uses them.
            target_inputs: views 1 and 2 as the target network sees them, where it is more than a copy of this block.

        Returns:
            The loss, a scalar without a graph.
        """
        assert self.objective is not None
        targets = self._targets(step, target_inputs or self._target_inputs)
        with self.span("head"), self.compute.autocast():
            embeddings = [self._run[1](output) for output in self.outputs]
        with self.compute.full_precision():
            full = torch.float32 if self.compute.half else self.compute.activations
            views, targets = (tuple(gather_rows(z.to(full), self.team) for z in zs) for zs in (embeddings, targets))
            views, patch = (views[:-1], views[-1]) if self._has_patch else (views, None)
            with self.span("loss"), self._same_draws(step):
                self._loss = self.objective(Embeddings(views, targets, labels, patch))
        loss = self._loss[0] / self.gradient_divisor
        with self.span("backward"):
            self.engine.zero_grad()
            self.engine.backward(self.scaler.scale(loss) if self.scaler else loss)
            self.engine.await_gradients()
        self.outputs, self._target_inputs = [], []
        return self._loss[0].detach()

    def follow_with_target(self, network: nn.Module) -> None:
        """BYOL: let the target be a copy of `network`, whose last part is this block, and of the head."""
        assert self.head is not None
        assert isinstance(self.config.objective, BYOLConfig)
        self.target = Target(network, self.head)
        self._follower = Follower(self.target, network, self.head, self.config.objective, self.phases.schedule_steps)

    def remember_buffers(self) -> None:
        """The buffers of batch norm are to be as they were before a step that is skipped."""
        self._buffers_kept = KeptBuffers(self)

    def set_learning_rate(self, step: int) -> float:
        """Put the learning rates of `step` into the optimizer; the one of the weights."""
        learning_rate = self.schedule(self.phases.local(step, self.index))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_ratio"]
        return learning_rate

    def finish(self, step: int, apply: Callable[[], bool] | None = None, finite: bool = True) -> StageReport:
        """Move the parameters, unless the loss is not finite; end the step.

        Args:
            step: of the run.
            apply: moves the parameters and says whether it did; this stage's optimizer if not given.
            finite: end to end: whether the loss of the last block is.
        """
        loss, terms = self._loss or (None, {})
        value = None if loss is None else loss.item()
        finite = finite and (value is None or isfinite(value))
        learning_rate = self.set_learning_rate(step)
        if finite:
            with self.span("optimizer"):
                moved = apply() if apply else self._step_optimizer(step)
        else:
            moved = False
            self._buffers_kept.put_back()
        if moved and self._follower is not None:
            self._follower.after_update(self.phases.local(step, self.index))
        self.skips.count(moved, value, learning_rate)
        self._loss, self.outputs = None, []
        gradient_norm, update_norm = self.norms.after_step(moved)
        return StageReport(
            value,
            {k: t.item() for k, t in terms.items()},
            learning_rate=learning_rate,
            skipped=not moved,
            gradient_norm=gradient_norm,
            update_norm=update_norm,
        )

    def _through_block(self, x: Tensor) -> Tensor:
        with self.compute.autocast():
            output: Tensor = self._run[0](x)
        return output.to(self.compute.activations)

    def _keyed(self, what: str, step: int, view: int) -> AbstractContextManager[None]:
        """Keys what a network of the user's own may draw; those with names here draw nothing."""
        if not self._may_draw:
            return nullcontext()
        # Replicas have a key each, or they would drop the same units of different images.
        key = (what, step, self.index, view) + ((self.team.rank,) if self.team.size > 1 else ())
        return seeded_forward(self.compute.device, self._seed, *key)

    def _same_draws(self, step: int) -> AbstractContextManager[None]:
        """Keys what a loss of the user's own may draw: the same on all replicas."""
        if self.team.size == 1 or not isinstance(self.config.objective, CustomConfig):
            return nullcontext()
        return seeded_forward(self.compute.device, self._seed, "objective", step, self.index)

    def _noised(self, x: Tensor, step: int, view: int, level: float) -> Tensor:
        if self.noise.kind == "none" or level == 0:
            return x
        draw = self.team.rows(self.draw_noise(self.team.whole_like(x), step, self.index, view))
        return add_noise(x, draw, self.noise.kind, level, self.noise.relative, self.team)

    def _targets(self, step: int, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if self.target is None:
            return ()
        assert self._follower is not None
        self._follower.before_forward(self.phases.local(step, self.index))
        with self._keyed("target", step, 0), self.compute.autocast():
            targets: tuple[Tensor, ...] = self.target(inputs)
        return targets

    def _step_optimizer(self, step: int) -> bool:
        if self.scaler:
            self.scaler.unscale()
        self.prepare_gradients(step)
        return self.scaler.step() if self.scaler else self.engine.step()

    def prepare_gradients(self, step: int) -> None:
        """Measure the gradients of `step` if that is due, and scale them down to `optimizer.clip_norm` if need be."""
        self.norms.before_step(step)
        if self.config.optimizer.clip_norm is not None:
            self.engine.clip(self.config.optimizer.clip_norm)
