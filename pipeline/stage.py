"""One stage: a block, its head, its loss and its optimizer. Pure: no process, no clock, no socket.

The serial loop and the stage worker use this same class, which is why a pipelined run equals the
serial one to the bit. A step is two calls: `forward` gives what the next stage needs as early as
possible, `update` then learns from the local loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isfinite

import torch
from torch import Tensor, nn

from pipeline.backbones import Block
from pipeline.config import Config
from pipeline.data.normalize import Normalize
from pipeline.errors import TrainingError
from pipeline.heads import ExpansionHead
from pipeline.noise import add_noise, standard_normal
from pipeline.objectives import build_objective
from pipeline.optim import build_optimizer, build_schedule
from pipeline.shapes import output_channels


@dataclass(frozen=True)
class StageReport:
    """What a stage has to say about one step.

    Args:
        loss: of this block, as it was minimised.
        terms: the named parts of the loss.
        learning_rate: of this step.
    """

    loss: float
    terms: dict[str, float]
    learning_rate: float


class Stage(nn.Module):
    """Stage `index` (from 1) of a run.

    Args:
        config: the whole run's configuration.
        index: which block.
        steps_per_epoch: the schedule's unit of time.
        device, dtype: where and in what precision it computes.
    """

    def __init__(
        self,
        config: Config,
        index: int,
        steps_per_epoch: int,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        mine = config.stage(index)
        self.index, self.noise_kind = index, mine.noise.kind
        self.normalize = Normalize(config.data.mean, config.data.std)
        self.block = Block(config.model, mine.units, config.seed)
        self.head = ExpansionHead(mine.head, output_channels(config.model, mine.units[-1]), config.seed, index)
        self.to(device=device or torch.device("cpu"), dtype=dtype)
        self.train()
        self.objective = build_objective(mine.objective)
        self.gradient_divisor = mine.objective.reference_world_size
        self.schedule: Callable[[int], float] = build_schedule(
            mine.optimizer, config.data.batch_size, config.train.epochs, steps_per_epoch
        )
        self.optimizer = build_optimizer(mine.optimizer, self.parameters())
        self.draw_noise: Callable[[Tensor, int, int, int], Tensor] = partial(_keyed_draw, config.seed)
        self._outputs: list[Tensor] = []

    def forward(self, views: Tensor, step: int, noise_level: float) -> Tensor:
        """Both views through the block, one after the other (batch norm is per view), and the noise.

        Args:
            views: `[V, B, C, H, W]`, detached.
            step: keys the noise.
            noise_level: relative standard deviation of the noise; 0 for none.

        Returns:
            The detached, contiguous activations for the next stage, `[V, B, C', H', W']`.
        """
        self._outputs = []
        for number, view in enumerate(views, 1):
            output = self.trunk(view)
            if self.noise_kind != "none" and noise_level > 0:
                draw = self.draw_noise(output, step, self.index, number)
                output = add_noise(output, draw, self.noise_kind, noise_level)
            self._outputs.append(output)
        return torch.stack([output.detach() for output in self._outputs])

    def trunk(self, images: Tensor) -> Tensor:
        """The block alone, without noise: `[B, C, H, W]` to `[B, C', H', W']`."""
        output: Tensor = self.block(self.normalize(images))
        return output

    def update(self, step: int) -> StageReport:
        """Head, loss, backward and optimizer step on what `forward` has just computed.

        Raises:
            TrainingError: the loss is not a finite number.
        """
        z1, z2 = (self.head(output) for output in self._outputs)
        loss, terms = self.objective(z1, z2)
        self.optimizer.zero_grad(set_to_none=True)
        (loss / self.gradient_divisor).backward()  # type: ignore[no-untyped-call]
        self._outputs = []
        learning_rate = self.schedule(step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        value = loss.item()
        if not isfinite(value):
            raise TrainingError(
                f"the loss is {value}. Lower optimizer.lr (now {learning_rate:g}) or warm up longer "
                f"(optimizer.warmup_epochs), for this stage alone with stages.{self.index}.optimizer"
            )
        return StageReport(value, {name: term.item() for name, term in terms.items()}, learning_rate)

    def snapshot(self) -> dict[str, Tensor]:
        """Everything the stage would need to go on: weights, buffers and momentum, by name."""
        tensors = dict(self.state_dict())
        for name, parameter in self.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        return tensors


def _keyed_draw(seed: int, output: Tensor, step: int, stage: int, view: int) -> Tensor:
    return standard_normal(output, seed, step, stage, view)
