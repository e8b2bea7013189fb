"""Finds the first operation in which two computations of a step differ, or in which the process dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.stage.stage import Stage
from workers.determinism.child import Note
from workers.determinism.step import checksum

UNWRITTEN = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_")
"""Operations that return uninitialised memory."""


@dataclass(frozen=True)
class Operation:
    """One call of a kernel.

    Args:
        name: such as `aten.convolution_backward`.
        module: whose parameters it uses, or in whose forward or backward pass it is called; empty if unknown.
    """

    name: str
    module: str

    def __str__(self) -> str:
        return f"{self.name} of {self.module}" if self.module else self.name


class OperationRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own
    """Records every operation and a checksum of its results.

    Args:
        stages: their modules are named in the record.
        note: gets the name of each operation before it is called.
    """

    def __init__(self, stages: Sequence[Stage], note: Note) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Operation, int]] = []
        self._note = note
        self._inside: list[str] = []
        self._in_backward = ""
        self._nodes: set[Any] = set()
        """Of the backward pass, whose module is known."""
        self._owners = {
            parameter.data_ptr(): name.rpartition(".")[0]
            for stage in stages
            for name, parameter in stage.named_parameters()
        }

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func).removesuffix(".default")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        owners = [self._owners[t.data_ptr()] for t in tensors if t.numel() and t.data_ptr() in self._owners]
        operation = Operation(name, owners[0] if owners else self._inside[-1] if self._inside else self._in_backward)
        self._note.write(str(operation))
        result = func(*args, **(kwargs or {}))
        computed = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if name.startswith("aten._to_copy") and owners:  # autocast's copy of a weight takes the name of the weight
            self._owners[computed[0].data_ptr()] = owners[0]
        elif not owners:
            for tensor in computed:
                self._owners.pop(tensor.data_ptr(), None)  # the address of a copy that was freed
        if func.overloadpacket.__name__ not in UNWRITTEN:
            total = sum(checksum(tensor) * place for place, tensor in enumerate(computed, 1))
            self.operations.append((operation, total))
        return result

    def enter_module(self, name: str) -> Callable[..., None]:
        """A hook for the beginning of the forward pass of module `name`."""

        def hook(module: nn.Module, inputs: object) -> None:
            self._name_nodes(inputs, self._inside[-1] if self._inside else "")
            self._inside.append(name)

        return hook

    def leave_module(self, module: nn.Module, inputs: object, output: object) -> None:
        """A hook for the end of the forward pass of a module."""
        self._name_nodes(output, self._inside.pop())

    def _name_nodes(self, tensors: object, name: str) -> None:
        """Give the backward of `tensors` the name of a module, but for the nodes that have one already."""
        waiting = [leaf.grad_fn for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor)]
        while waiting:
            node = waiting.pop()
            if node is None or node in self._nodes:
                continue
            self._nodes.add(node)
            node.register_prehook(lambda gradients: self._enter_backward(name))
            node.register_hook(lambda inputs, outputs: self._enter_backward(""))
            waiting += [function for function, _ in node.next_functions]

    def _enter_backward(self, name: str) -> None:
        self._in_backward = name


@contextmanager
def recorded(stages: Sequence[Stage], note: Note) -> Iterator[OperationRecorder]:
    """Record the operations of a step of `stages` inside the block."""
    recorder = OperationRecorder(stages, note)
    hooks = []
    for name, module in _modules(stages):
        hooks.append(module.register_forward_pre_hook(recorder.enter_module(name)))
        hooks.append(module.register_forward_hook(recorder.leave_module))
    try:
        with recorder:
            yield recorder
    finally:
        for hook in hooks:
            hook.remove()


def collecting(
    recorders: list[OperationRecorder], note: Note
) -> Callable[[Sequence[Stage]], AbstractContextManager[object]]:
    """As `recorded`, which puts the recorder into `recorders`."""

    @contextmanager
    def context(stages: Sequence[Stage]) -> Iterator[None]:
        with recorded(stages, note) as recorder:
            recorders.append(recorder)
            yield

    return context


def first_difference(first: OperationRecorder, second: OperationRecorder) -> Operation | None:
    """The first operation with different results; None if there is none, or the operations themselves differ."""
    for (operation, first_sum), (other_operation, second_sum) in zip(first.operations, second.operations, strict=False):
        if operation.name != other_operation.name:
            return None
        if first_sum != second_sum:
            return operation
    return None


def _modules(stages: Sequence[Stage]) -> Iterator[tuple[str, nn.Module]]:
    for stage in stages:
        yield from ((name, module) for name, module in stage.named_modules() if name)
