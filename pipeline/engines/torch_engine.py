"""PyTorch's optimizers as the engine of a stage, with gradients averaged over its replicas."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from pipeline.engines.base import OPTIMIZER, Engine
from pipeline.replicas import BUCKET_BYTES, GradientSum, ReplicaGroup, held_by, on_first, shard_optimizer


class TorchEngine(Engine):
    """With one replica, only the optimizer; with more, gradients are averaged beside the backward pass.

    Args:
        module: its parameters' names are those of the state.
        optimizer: of the parameters of `module`; it has not made a step.
        team: the replicas.
        shard: spread the optimizer's state over the replicas; the updates are bit-identical.
        bucket_bytes: gradients that are summed together.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        team: ReplicaGroup,
        shard: bool = False,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self._parameters = dict(module.named_parameters())
        self._team = team
        self._sharded = shard and team.size > 1
        self.optimizer = shard_optimizer(optimizer, team) if self._sharded else optimizer
        self._sum = GradientSum(module.parameters(), team, bucket_bytes) if team.size > 1 else None

    def zero_grad(self) -> None:
        """Drop the gradients of the last step."""
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of `loss`; each bucket is sent to the other replicas as soon as it is full."""
        # The sum of the gradients of loss / R is the average of those of the loss, and on the way they are as large as
        # in one process: fp16 overflows where it would there.
        torch.autograd.backward(loss / self._team.size if self._team.size > 1 else loss)

    def backward_again(self, output: Tensor, gradient: Tensor, last: bool) -> None:
        """See `Engine.backward_again`."""
        with nullcontext() if self._sum is None or last else self._sum.held():
            torch.autograd.backward(output, gradient)

    def await_gradients(self) -> None:
        """Wait until every gradient is the average; raises `ReplicaLost` if another replica does not answer."""
        if self._sum is not None:
            self._sum.finish()

    def clip(self, max_norm: float) -> None:
        """Scale the gradients so that their norm, all together, is at most `max_norm`."""
        clip_grad_norm_(self.parameters(), max_norm)

    def gradients(self) -> list[Tensor]:
        """Of every parameter that has one; every replica has all of them."""
        return [p.grad for p in self.parameters() if p.grad is not None]

    def parameters(self) -> list[Tensor]:
        """The parameters of the optimizer; where its state is sharded, each replica still has all parameters."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def step(self) -> bool:
        """Update the parameters; always true."""
        self.optimizer.step()
        return True

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state as `optimizer.KEY.PARAMETER`, not copied; if sharded, on the first replica only."""
        state = held_by(self.optimizer).state
        tensors = {
            f"{OPTIMIZER}{key}.{name}": torch.as_tensor(value)
            for name, parameter in self._parameters.items()
            for key, value in state.get(parameter, {}).items()
        }
        if not self._sharded:
            return tensors
        return on_first(tensors, self._team, next(iter(self._parameters.values())).device)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`; of the whole state, a replica takes what it holds.

        Raises:
            RuntimeError: a tensor belongs to no parameter of this stage.
        """
        local = held_by(self.optimizer)
        held = {id(p) for group in local.param_groups for p in group["params"]}
        for name, value in tensors.items():
            if not name.startswith(OPTIMIZER):
                continue
            key, _, owner = name.removeprefix(OPTIMIZER).partition(".")
            if owner not in self._parameters:
                raise RuntimeError(f"there is no parameter '{owner}' that '{name}' could belong to")
            parameter = self._parameters[owner]
            if id(parameter) in held:
                # Counters of torch's optimizers are numbers on the CPU, wherever the parameter is.
                value = value.to(parameter.device) if value.dim() else value
                local.state[parameter][key] = value.clone()
