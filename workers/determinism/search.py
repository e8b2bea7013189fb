"""In which operation of which module two computations of one step part, or the process dies."""

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
"""Operations whose result is memory that the next one writes."""


@dataclass(frozen=True)
class Operation:
    """One call of a kernel.

    Args:
        name: such as `aten.convolution_backward`.
        module: whose parameters it takes, or in whose forward it is; empty if that is not known.
    """

    name: str
    module: str

    def __str__(self) -> str:
        return f"{self.name} of {self.module}" if self.module else self.name


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own
    """Takes down every operation and the checksum of what it computes.

    Args:
        stages: whose modules are named.
        note: is told each operation before it begins.
    """

    def __init__(self, stages: Sequence[Stage], note: Note) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Operation, int]] = []
        self._note = note
        self._inside: list[str] = []
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
        operation = Operation(name, owners[0] if owners else self._inside[-1] if self._inside else "")
        self._note.write(str(operation))
        result = func(*args, **(kwargs or {}))
        computed = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if name.startswith("aten._to_copy") and owners:  # autocast's copy of a weight is known by the weight's name
            self._owners[computed[0].data_ptr()] = owners[0]
        elif not owners:
            for tensor in computed:
                self._owners.pop(tensor.data_ptr(), None)  # of a copy that has been freed
        if func.overloadpacket.__name__ not in UNWRITTEN:
            total = sum(checksum(tensor) * place for place, tensor in enumerate(computed, 1))
            self.operations.append((operation, total))
        return result

    def entered(self, name: str) -> Callable[..., None]:
        """A hook for the beginning of a module's forward."""
        return lambda *inputs: self._inside.append(name)

    def left(self, *inputs: object) -> None:
        """A hook for its end."""
        self._inside.pop()


@contextmanager
def recorded(stages: Sequence[Stage], note: Note) -> Iterator[Recorder]:
    """Take down the operations of a step of `stages`."""
    recorder = Recorder(stages, note)
    hooks = []
    for name, module in _modules(stages):
        hooks.append(module.register_forward_pre_hook(recorder.entered(name)))
        hooks.append(module.register_forward_hook(recorder.left))
    try:
        with recorder:
            yield recorder
    finally:
        for hook in hooks:
            hook.remove()


def keeping(taken: list[Recorder], note: Note) -> Callable[[Sequence[Stage]], AbstractContextManager[object]]:
    """As `recorded`, which puts the recorder into `taken`."""

    @contextmanager
    def around(stages: Sequence[Stage]) -> Iterator[None]:
        with recorded(stages, note) as recorder:
            taken.append(recorder)
            yield

    return around


def first_difference(first: Recorder, second: Recorder) -> Operation | None:
    """The earliest operation that computed something else; None if there is none, or they are not the same ones."""
    for (operation, one), (other, two) in zip(first.operations, second.operations, strict=False):
        if operation.name != other.name:
            return None
        if one != two:
            return operation
    return None


def _modules(stages: Sequence[Stage]) -> Iterator[tuple[str, nn.Module]]:
    for stage in stages:
        yield from ((name, module) for name, module in stage.named_modules() if name)
