"""The forward half of a stage: its views through the block, and each block's output through the head.

Nothing here computes a loss or moves a parameter; `pipeline.stage.stage` does, on what this leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from pipeline.backbones import build_block
from pipeline.backbones.block import Block
from pipeline.backbones.heads import Head, build_head
from pipeline.config import Config
from pipeline.config.model import ModuleConfig
from pipeline.data.packing import pack
from pipeline.measures.online import OnlineMeasures
from pipeline.precision import Compute
from pipeline.randomness import seeded_forward
from pipeline.replicas import ReplicaGroup, synchronise_batch_norms
from pipeline.shapes import block_output, channels_of
from pipeline.stage.bit_flips import Exposed, untouched
from pipeline.stage.digests import StepDigests
from pipeline.stage.inputs import Batch, StageInputs
from pipeline.stage.noise import StageNoise
from pipeline.stage.skipped_steps import KeptBuffers
from pipeline.stage.spans import Spans, no_spans
from pipeline.stage.target_network import Target
from pipeline.stage.units import RecomputedUnits
from pipeline.stage.view_passes import ViewPass


class StageForward(nn.Module):
    """Block, noise and head of stage `index` (from 1) of a run; see `pipeline.stage.stage.Stage`."""

    def __init__(
        self,
        config: Config,
        index: int,
        steps_per_epoch: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        team: ReplicaGroup,
        block: Block | None = None,
    ) -> None:
        super().__init__()
        self.index, self.config, self.team = index, config.stage(index), team
        self._seed, self._may_draw = config.seed, isinstance(config.model, ModuleConfig)
        self.compute = Compute(self.config.precision, device, dtype)
        self.inputs = StageInputs(config, index, steps_per_epoch, self.compute)
        self.noise = StageNoise(self.config.noise, config.seed, index, team)
        self.block = build_block(config, index) if block is None else block
        self.head: Head | None = None
        self.frozen = self.config.frozen
        """Whether the block keeps its weights: it always runs in evaluation mode, and has neither head nor loss."""
        if self.frozen:
            self.block.requires_grad_(False)
        elif config.mode != "end_to_end" or index == config.num_stages:
            self.head = build_head(self.config.head, channels_of(block_output(config, index)), config.seed, index)
        self._units: RecomputedUnits | None = None
        if self.config.memory.recompute == "units":
            self._units = RecomputedUnits(self.compute.compiled, isinstance(config.model, ModuleConfig))
        self.span: Spans = no_spans
        """Called with every part of a step, for timing; set by the loop that drives the stage."""
        self.online: OnlineMeasures | None = None
        """Measurements beside the training, set by the loop that drives the stage; never part of its state dict."""
        self.exposed: Exposed = untouched
        """Called with what a step has in memory, for faults; set by the loop that drives the stage."""
        self.digests = StepDigests(config.digests.every, team, device)
        self.outputs: list[Tensor] = []
        """Of the last `forward`, one per view; what the loss is computed from. They have a graph unless
        `memory.recompute` is `views`."""
        self.passes: list[ViewPass] = []
        """Of the last `forward`, one per view, where `memory.recompute` is `views`."""
        self.target: Target | None = None
        self._target_inputs: list[Tensor] = []

    def _make_ready(self, device: torch.device, dtype: torch.dtype) -> None:
        """Once every module is there, the objective and the target too."""
        # Not those of the objective: it sees the whole batch on every replica.
        synchronise_batch_norms((self.block, self.head, self.target), self.team)
        self.to(device=device, dtype=dtype)
        self.train()
        in_units = self._units is not None
        in_parts = [in_units, in_units or (self.head is not None and self.head.chunk is not None)]
        modules = zip((self.block, self.head), in_parts, strict=True)
        # In a tuple, because a module that is an attribute would stand twice in the state dict.
        self._run = tuple(self.compute.prepare(m, parts) for m, parts in modules if m is not None)

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
        self._forget_views()
        self.digests.begin(step)
        self.exposed("weight", step, self.state_dict)
        self.exposed("message", step, partial(_by_view, batch))
        by_view = self.config.memory.recompute == "views" and torch.is_grad_enabled()
        for number, view in enumerate(self.inputs.views(batch, step), 1):
            self.digests.add_view(view)
            x = self.inputs.prepared(view)
            if self.target is not None and number <= 2:
                self._target_inputs.append(x.detach())
            through = self._view_function(step, number, noise_level)
            if by_view:
                self.passes.append(ViewPass(x, through, (self.block, self.noise)))
            self.outputs.append(self.passes[-1].first() if by_view else through(x))
        return pack([output.detach() for output in self.outputs], self.inputs.packed)

    def train(self, mode: bool = True) -> Self:
        """A frozen stage stays in evaluation mode, so that the running statistics of batch norm stay, too."""
        return super().train(mode and not self.frozen)

    def learns(self, learner: int | None) -> bool:
        """Whether a step moves this stage, where only stage `learner` learns, or all do (None)."""
        return not self.frozen and learner in (None, self.index)

    @torch.no_grad()
    def relay(self, batch: Batch, step: int, noise_level: float) -> Tensor:
        """As `forward`, for a block that does not learn (any more): running statistics, and nothing is kept."""
        self.eval()
        activations: Tensor = self(batch, step, noise_level)
        self._forget_views()
        return activations

    def remember_buffers(self) -> None:
        """Make room for the buffers of batch norm, which a skipped step puts back."""
        self._buffers_kept = KeptBuffers(self)

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

    def _view_function(self, step: int, number: int, noise_level: float) -> Callable[[Tensor], Tensor]:
        """Block and noise for one view. Called again, it computes the same, and nobody times or measures it."""
        first = True

        def onward(output: Tensor) -> Tensor:
            nonlocal first
            with self.compute.full_precision():
                output = output.to(self.compute.activations)
                if first and self.online is not None and self.training:
                    self.online.collect(number, output)
                first = False
                at_output = self.config.noise.placement == "output"
                return self.noise(output, step, number, noise_level) if at_output else output

        def through(x: Tensor) -> Tensor:
            if self.config.noise.placement == "input":
                x = self.noise(x, step, number, noise_level)
            with self.span(f"view {number}") if first else nullcontext(), self._keyed("forward", step, number):
                if self._units is not None and self.training:
                    with self.compute.autocast():
                        return self._units.run(self.block.unit_calls(), x, onward, [self.noise])
                output = self._through_block(x)
            return onward(output)

        return through

    def _through_block(self, x: Tensor) -> Tensor:
        with self.compute.autocast():
            output: Tensor = self._run[0](x)
        return output.to(self.compute.activations)

    def _keyed(self, purpose: str, step: int, view: int) -> AbstractContextManager[None]:
        """Seeds the draws of a network of the user's own; the networks that have names here draw nothing."""
        if not self._may_draw:
            return nullcontext()
        # Replicas have a key each, or they would drop the same units of different images.
        key = (purpose, step, self.index, view) + ((self.team.rank,) if self.team.size > 1 else ())
        return seeded_forward(self.compute.device, self._seed, *key)

    def _embedding(self, output: Tensor) -> Tensor:
        # One autocast per view: it casts each weight once, so the gradients of views that shared one would be summed
        # in half precision.
        with self.compute.autocast():
            if self._units is not None and self.head is not None and self.head.keeps_maps:
                return self._units.embedding(self.head, output)
            embedding: Tensor = self._run[1](output)
        return embedding

    def _forget_views(self) -> None:
        self.outputs, self.passes, self._target_inputs = [], [], []


def _by_view(batch: Batch) -> Mapping[str, Tensor]:
    return {f"message {n}": view for n, view in enumerate([batch] if isinstance(batch, Tensor) else batch, 1)}
