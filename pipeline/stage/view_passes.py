"""The backward pass of one view after the other, where a stage keeps the activations of one view at a time.

    forward   view 1, view 2, view 3     without a graph: activations for the next stage, embeddings for the loss
    loss      of all embeddings          with a graph: its gradient with respect to each embedding
    backward  view 3, view 2, view 1     each computed again with a graph, which its backward pass consumes

From the last to the first, because that is the order in which autograd adds up the gradients of a weight that several
views share: any other order would round differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack

from torch import Tensor, nn

from pipeline.engines import Engine
from pipeline.recompute import RepeatedForward


class ViewPass:
    """One view's pass through a block.

    Args:
        x: the input of the block.
        through: from `x` to the block's output, as `RepeatedForward` wants it.
        modules: all that it runs.
    """

    def __init__(self, x: Tensor, through: Callable[[Tensor], Tensor], modules: Iterable[nn.Module]) -> None:
        self._x, self._forward = x, RepeatedForward(through, modules)

    def first(self) -> Tensor:
        """The block's output, without a graph."""
        return self._forward.first(self._x)

    def again(self, x: Tensor | None) -> AbstractContextManager[Tensor]:
        """The same with a graph; `x`: the input with a graph of its own, if it has one."""
        return self._forward.again(self._x if x is None else x)


def backward_by_view(
    passes: Sequence[Sequence[ViewPass]],
    heads: Sequence[RepeatedForward],
    gradients: Sequence[Tensor | None],
    engine: Engine,
) -> None:
    """Compute every view again, from the last to the first, and hand its gradient to the engine.

    Args:
        passes: of every view, those of the blocks that one gradient flows through, in order.
        heads: of every view, from the output of the last of these blocks to its embedding.
        gradients: of the loss with respect to every embedding; None where the loss does not read it.
        engine: computes gradients; its `backward` has been through the loss.

    Raises:
        ReplicaLost: another replica does not answer.
    """
    read = [number for number, gradient in enumerate(gradients) if gradient is not None]
    for number in reversed(read):
        with ExitStack() as stack:
            x: Tensor | None = None
            for block in passes[number]:
                x = stack.enter_context(block.again(x))
            assert x is not None
            embedding = stack.enter_context(heads[number].again(x))
            gradient = gradients[number]
            assert gradient is not None
            engine.backward_again(embedding, gradient, last=number == read[0])
