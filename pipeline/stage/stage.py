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

from pipeline.backbones.block import Block
from pipeline.config import Config
from pipeline.config.objectives import BarlowTwinsConfig, BYOLConfig, CustomConfig
from pipeline.engines import build_engine, idle_engine
from pipeline.objectives import Embeddings, Objective, build_objective
from pipeline.optim import build_schedule
from pipeline.precision import LossScaler
from pipeline.randomness import seeded_forward
from pipeline.recompute import RepeatedForward
from pipeline.replicas import SOLO, ReplicaGroup, gather_rows, held_by
from pipeline.stage.digests import DigestName
from pipeline.stage.forward import StageForward
from pipeline.stage.phases import Phases
from pipeline.stage.report import StageReport, StepNorms
from pipeline.stage.skipped_steps import SkipCounter
from pipeline.stage.target_network import Follower, Target
from pipeline.stage.view_passes import backward_by_view


class Stage(StageForward):
    """Stage `index` (from 1) of a run.

    Args:
        config: the whole run's configuration.
        index: which block.
        steps_per_epoch: the schedule's unit of time.
        device, dtype: where and in what precision it computes.
        team: the replicas that share its batch. Each is given its own rows of every view, and all of them together
            compute what one would of the whole batch; every method then waits for the others to call it too.
        block: of `build_block`, where it is built already.
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
        block: Block | None = None,
    ) -> None:
        device = device or torch.device("cpu")
        super().__init__(config, index, steps_per_epoch, device=device, dtype=dtype, team=team, block=block)
        stage = self.config
        self._has_patch = config.has_patch
        self.phases = Phases.of(config, steps_per_epoch)
        self.objective: Objective | None = None
        self._follower: Follower | None = None
        if self.head is not None:
            self.objective = build_objective(stage.objective, self.head.embedding_width, config.seed, index)
            if isinstance(stage.objective, BYOLConfig):
                self.follow_with_target(self.block)
        self._make_ready(device, dtype)
        self.gradient_divisor = (
            stage.objective.reference_world_size if isinstance(stage.objective, BarlowTwinsConfig) else 1
        )
        self.schedule: Callable[[int], float] = build_schedule(
            stage.optimizer, config.data.batch_size, config.train.epochs, steps_per_epoch, config.train.restarts
        )
        trained = nn.ModuleDict({n: m for n, m in self.named_children() if n in ("block", "head", "objective")})
        self.engine = idle_engine() if self.frozen else build_engine(stage, trained, team, device)
        self.optimizer = self.engine.optimizer
        scaled = stage.precision.dtype == "fp16" and not self.frozen
        self.scaler = LossScaler(device, [self.optimizer]) if scaled else None
        self.skips = SkipCounter(index, config.train.max_skipped)
        self.norms = StepNorms(self.engine, config.metrics.norms_every if team.rank == 0 else 0)
        self._loss: tuple[Tensor, dict[str, Tensor]] | None = None
        self._read: tuple[float, dict[str, float]] | None = None
        self.remember_buffers()

    def update(self, step: int, labels: Tensor | None = None) -> StageReport:
        """Head, loss, backward and optimizer step on what `forward` has just computed.

        Raises:
            TrainingError: the loss was not finite too many times in a row.
        """
        with self.span("update"):
            self.backward(step, labels)
            return self.finish(step)

    def backward(
        self,
        step: int,
        labels: Tensor | None = None,
        target_inputs: list[Tensor] | None = None,
        before: Sequence[Stage] = (),
    ) -> Tensor:
        """Compute the loss and its gradients, and keep both until `finish`.

        Args:
            step: of the run.
            labels: `[B]`, of the whole batch, for an objective that uses them.
            target_inputs: views 1 and 2 as the target network sees them, where it is more than a copy of this block.
            before: end to end: the stages before this one, through which the gradient flows on.

        Returns:
            The loss, a scalar without a graph.
        """
        assert self.objective is not None
        targets = self._targets(step, target_inputs or self._target_inputs)
        with self.span("head"):
            heads, embeddings = self._embeddings()
        with self.compute.full_precision():
            full = torch.float32 if self.compute.half else self.compute.activations
            views, targets = (tuple(gather_rows(z.to(full), self.team) for z in zs) for zs in (embeddings, targets))
            views, patch = (views[:-1], views[-1]) if self._has_patch else (views, None)
            with self.span("loss"), self._same_draws(step):
                self._loss = self.objective(Embeddings(views, targets, labels, patch, step))
        self.digests.add("loss", self._loss[:1])
        loss = self._loss[0] / self.gradient_divisor
        with self.span("backward"):
            self.engine.zero_grad()
            self.engine.backward(self.scaler.scale(loss) if self.scaler else loss)
            if heads:
                passes = [[stage.passes[number] for stage in (*before, self)] for number in range(len(heads))]
                backward_by_view(passes, heads, [z.grad for z in embeddings], self.engine)
            self.engine.await_gradients()
        for stage in (*before, self):
            stage._forget_views()
        return self._loss[0].detach()

    def _embeddings(self) -> tuple[list[RepeatedForward], list[Tensor]]:
        """Of every view, `[B, D]`; without a graph where one view at a time will be computed again, by the first."""
        if not self.passes:
            return [], [self._embedding(output) for output in self.outputs]
        assert self.head is not None
        heads = [RepeatedForward(self._embedding, [self.head]) for _ in self.passes]
        # One after the other out of the list, because nothing else needs them.
        return heads, [head.first(self.outputs.pop(0)).detach().requires_grad_() for head in heads]

    def follow_with_target(self, network: nn.Module) -> None:
        """BYOL: let the target be a copy of `network`, whose last part is this block, and of the head."""
        assert self.head is not None
        assert isinstance(self.config.objective, BYOLConfig)
        self.target = Target(network, self.head)
        self._follower = Follower(self.target, network, self.head, self.config.objective, self.phases.schedule_steps)

    def restart_target(self) -> None:
        """BYOL: let the target be a copy of the network as it is now, whose weights have been loaded."""
        if self._follower is not None:
            self._follower.copy()

    def set_learning_rate(self, step: int) -> float:
        """Put the learning rates of `step` into the optimizer; the one of the weights."""
        learning_rate = self.schedule(self.phases.local(step, self.index))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_ratio"]
        return learning_rate

    def read_loss(self) -> tuple[float, dict[str, float]]:
        """The loss of `backward` and its terms as numbers.

        All of them are copied from the device at once, because each read waits until it has finished what was launched.
        Until `finish` they are read only once, before the step changes a parameter that a term may be.
        """
        if self._read is None:
            assert self._loss is not None
            loss, terms = self._loss
            there = [loss, *(term for term in terms.values() if term.device == loss.device)]
            # In double precision, in which every number of a loss is exact, whatever it was computed in.
            value, *rest = torch.stack([number.detach().double() for number in there]).tolist()
            read = iter(rest)  # a term that the user's loss gave as a plain number is on the host
            self._read = value, {k: next(read) if t.device == loss.device else t.item() for k, t in terms.items()}
        return self._read

    def finish(self, step: int, apply: Callable[[], bool] | None = None, finite: bool = True) -> StageReport:
        """Update the parameters, unless the loss is not finite; end the step.

        Args:
            step: of the run.
            apply: updates the parameters and returns whether it did; this stage's optimizer if not given.
            finite: end to end: whether the loss of the last block is.
        """
        if self.frozen:
            self._forget_views()
            return self.relayed(step)
        value, terms = (None, {}) if self._loss is None else self.read_loss()
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
        self._loss = self._read = None
        self._forget_views()
        gradient_norm, update_norm = self.norms.after_step(moved)
        return StageReport(
            value,
            terms,
            learning_rate=learning_rate,
            skipped=not moved,
            gradient_norm=gradient_norm,
            update_norm=update_norm,
            digests=self._digests_taken(step),
        )

    def relayed(self, step: int) -> StageReport:
        """The report of a step at which this stage only ran forward (`relay`)."""
        return StageReport(frozen=self.frozen, digests=self._digests_taken(step))

    def _digests_taken(self, step: int) -> dict[DigestName, str]:
        if self.digests.due:
            self.digests.add("weights", self.state_dict().values())
        return self.digests.taken(step)

    def _same_draws(self, step: int) -> AbstractContextManager[None]:
        """Seeds the draws of a loss of the user's own: the same on all replicas."""
        if self.team.size == 1 or not isinstance(self.config.objective, CustomConfig):
            return nullcontext()
        return seeded_forward(self.compute.device, self._seed, "objective", step, self.index)

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
        """Measure the gradients of `step` if that is due, scale them down to `optimizer.clip_norm` if need be, and
        digest them."""
        self.exposed("gradient", step, self._gradients)
        self.exposed("optimizer", step, self._optimizer_state)
        self.norms.before_step(step)
        if self.config.optimizer.clip_norm is not None:
            self.engine.clip(self.config.optimizer.clip_norm)
        self.digests.add("gradient", self.engine.gradients())

    def _gradients(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.named_parameters() if p.grad is not None}

    def _optimizer_state(self) -> dict[str, Tensor]:
        """What this replica holds, as it is; DeepSpeed's optimizers have it of masters, or of pieces of a group."""
        state, held = dict(held_by(self.optimizer).state), dict[str, object]()
        owners = [(name, state.pop(parameter, {})) for name, parameter in self.named_parameters()]
        owners += [(f"piece {number}", values) for number, values in enumerate(state.values(), 1)]
        for name, values in owners:
            held |= {f"{key} of {name}": value for key, value in values.items()}
        return {name: value for name, value in held.items() if isinstance(value, Tensor)}
