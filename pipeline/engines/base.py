"""The interface of an engine: backward pass, gradients, optimizer step, state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

OPTIMIZER = "optimizer."
"""Prefix of the names of tensors that are the optimizer's state."""


class Engine(ABC):
    """The optimizer of one stage, shared by its replicas.

    The gradient of a parameter is the average over the replicas; `pipeline.replicas` scales what flows into it so
    that this average is the gradient that one replica would have computed from the whole batch.
    """

    optimizer: Optimizer
    """Its groups carry `lr`, set before every step, and `lr_ratio`."""

    @abstractmethod
    def zero_grad(self) -> None:
        """Drop the gradients of the last step."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of `loss`; averaging over the replicas begins while others are still being computed."""

    def backward_again(self, output: Tensor, gradient: Tensor, last: bool) -> None:
        """Go on with the `backward` of a loss into a part of the network that was computed again.

        Args:
            output: of that part, with its graph.
            gradient: of the loss with respect to `output`.
            last: whether no other part follows, so that gradients may leave for the other replicas.

        Raises:
            NotImplementedError: this engine averages gradients as soon as a backward pass ends.
        """
        raise NotImplementedError(f"{type(self).__name__} has one backward pass for each step")

    @abstractmethod
    def await_gradients(self) -> None:
        """Wait until every gradient is the average over the replicas."""

    @abstractmethod
    def clip(self, max_norm: float) -> None:
        """Scale the gradients so that their norm, all together, is at most `max_norm`."""

    @abstractmethod
    def gradients(self) -> list[Tensor] | None:
        """Of every parameter that has one, as they are, always in the same order; None where no replica has them whole
        and in their own precision."""

    def gradient_norm(self) -> float | None:
        """The norm of all gradients together, as if they were one vector; None where only `step` computes it."""
        gradients = self.gradients()
        return None if gradients is None else get_total_norm(gradients).item()

    def stepped_gradient_norm(self) -> float | None:
        """The same, as the last `step` computed it; None for an engine that does not report it."""
        return None

    @abstractmethod
    def parameters(self) -> list[Tensor] | None:
        """The tensors that `step` changes, always in the same order; None where this replica has only a part."""

    @abstractmethod
    def step(self) -> bool:
        """Update the parameters; returns whether they changed."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The state that one replica would have, by `optimizer.KEY.PARAMETER`: on every replica, or on the first only.

        Every replica of the stage must call it at the same step. An engine that keeps finer copies of the parameters
        gives those too, under the names of the parameters.
        """

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`, from the state of the whole stage; names that are not its own are left alone.

        Raises:
            RuntimeError: a tensor belongs to no parameter of this stage.
        """
