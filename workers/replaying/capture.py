"""Hooks on the modules of a stage: what they gave, the gradients that came back, and the first that was not finite.

Nothing here changes a bit of the step. A gradient is read by a hook on the tensor that a module gave, which also an
operation in place behind it leaves as it is; hooks on a module's backward pass would put a copy into the graph.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from pipeline.objectives import Embeddings
from pipeline.stage.stage import Stage
from workers.replaying.modules import CallNumbers, ModuleNumbers, first_not_finite, not_finite_in

LAST_CALLS = 5
"""Of modules, that are shown where one gave a number which is not finite."""


class Capture:
    """Watches one step of a stage; a context manager.

    Args:
        stage: whose modules are watched.
        objective: whose embeddings are kept: that of the stage, or end to end of the last one.
        scale: that the loss is multiplied with before its gradient is computed; 1 but for fp16.
        keep: whether tensors are kept, too: what the block and the head have taken and given, and each of their units.
    """

    def __init__(self, stage: Stage, objective: nn.Module | None, scale: float, keep: bool) -> None:
        self._stage, self._objective, self._scale, self._keep = stage, objective, scale, keep
        self.modules: dict[str, ModuleNumbers] = {}
        """By name, in the order in which they were called first."""
        self.tensors: dict[str, Tensor] = {}
        """On the host: `NAME/CALL/input` and `NAME/CALL/output`, calls counted from 1."""
        self.output_gradients: dict[str, Tensor] = {}
        """The gradients of these outputs, by `output/NAME/CALL`."""
        self.outputs: list[Tensor] = []
        """Of the block, on the host, one per view."""
        self.embeddings: Embeddings | None = None
        self.embedding_gradients: dict[int, Tensor] = {}
        """By the number of the view, from 0; one that the loss does not read has none."""
        self.forward: str | None = None
        """Where the first number that is not finite came from on the way forward, as a sentence."""
        self.last_calls: deque[CallNumbers] = deque(maxlen=LAST_CALLS)
        """Of modules that call no other; up to the one that gave the first number which is not finite."""
        self.rows: Tensor | None = None
        """Whether each row of the output of that one has such a number, `[B]`; None where its output has no rows."""
        self.culprit = ""
        """Its name."""
        self.backward: str | None = None
        """The same of the way back."""
        self._first_finite = False
        """Whether a gradient has come out of the loss that is finite."""
        self._active: list[str] = []
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for name, module in self._stage.named_modules():
            if name:
                begin, end = partial(self._begin, name), partial(self._end, name)
                self._handles.append(module.register_forward_pre_hook(begin, with_kwargs=False))
                self._handles.append(module.register_forward_hook(end))
        if self._objective is not None:
            self._handles.append(self._objective.register_forward_pre_hook(self._embedded))
        for name, parameter in self._stage.named_parameters():
            if parameter.requires_grad:
                hook: Callable[[Tensor], None] = partial(self._accumulated, name)
                self._handles.append(parameter.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, name: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if self._active and self._active[-1] in self.modules:
            self.modules[self._active[-1]].leaf = False
        self.modules.setdefault(name, ModuleNumbers(name, type(module).__name__))
        self._active.append(name)
        given = list(_tensors(arguments))
        if self.forward is None and any(map(not_finite_in, given)):
            self.forward = self._source_of_input(name)
            self._blame(name, given)
            self._put(f"{name}/{self.modules[name].calls + 1}/input", given, always=True)
        self._put(f"{name}/{self.modules[name].calls + 1}/input", given)

    def _end(self, name: str, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        made, numbers = list(_tensors(output)), self.modules[name]
        numbers.add_output(made)
        key = f"{name}/{numbers.calls}"
        if self.forward is None and numbers.leaf:
            self.last_calls.append(CallNumbers.of(numbers, made))
        if self.forward is None and numbers.not_finite:
            inner = f", while no module in it did: an operation of its own {numbers.kind}.forward"
            self.forward = f"{name} ({numbers.kind}) gave it, in call {numbers.calls}{'' if numbers.leaf else inner}"
            weight = first_not_finite(module.named_parameters(recurse=False))
            if weight is not None:
                self.forward += f": its {weight} is not finite before the step"
            self._put(f"{key}/input", list(_tensors(arguments)), always=True)
            self._put(f"{key}/output", made, always=True)
            self._blame(name, made)
        self._put(f"{key}/output", made)
        if name == "block":
            self.outputs += map(on_host, made)
        kept = self._kept()
        for tensor in made:
            if tensor.requires_grad:
                tensor.register_hook(partial(self._returned, numbers, key if kept else None))  # type: ignore[no-untyped-call]
        self._active.pop()

    def _blame(self, name: str, tensors: list[Tensor]) -> None:
        self.culprit = name
        if tensors and tensors[0].dim() > 1 and not name.startswith("objective"):
            self.rows = on_host(~tensors[0].flatten(1).isfinite().all(1))

    def _source_of_input(self, name: str) -> str:
        kind = self.modules[name].kind
        if name == "block" and self._stage.index > 1:
            before = self._stage.index - 1
            return f"it came with the input of the stage: --stage {before} shows where stage {before} gave it"
        return f"it came with the input of {name} ({kind}), from an operation that is no module"

    def _kept(self) -> bool:
        """Of the block, of the head, and of the modules that they call themselves."""
        return self._keep and len(self._active) <= 2 and self._active[0] in ("block", "head")

    def _put(self, key: str, tensors: list[Tensor], always: bool = False) -> None:
        if not self._keep or not (always or self._kept()) or key in self.tensors:
            return
        for number, tensor in enumerate(tensors):
            self.tensors[key if not number else f"{key}.{number}"] = on_host(tensor)

    def _returned(self, numbers: ModuleNumbers, key: str | None, gradient: Tensor) -> None:
        if not numbers.name.startswith("objective"):
            self._came_back(gradient, f"the output of {numbers.name} ({numbers.kind})")
        numbers.add_gradient(gradient, self._scale)
        if key is not None:
            self.output_gradients[f"output/{key}"] = on_host(gradient) / self._scale

    def _came_back(self, gradient: Tensor, where: str) -> None:
        if self.backward is None and not_finite_in(gradient):
            what = "the gradient that came back to" if self._first_finite else "the loss gave it: its gradient at"
            self.backward = f"{what} {where}"
        self._first_finite = True

    def _accumulated(self, name: str, parameter: Tensor) -> None:
        if self.backward is None and parameter.grad is not None and not_finite_in(parameter.grad):
            self.backward = f"the gradient of {name}; what came back to its module was finite"

    def _embedded(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        (embeddings,) = arguments
        self.embeddings = embeddings
        for number, view in enumerate(embeddings.views):
            if view.requires_grad:
                view.register_hook(partial(self._embedding_returned, number))

    def _embedding_returned(self, number: int, gradient: Tensor) -> None:
        self._came_back(gradient, f"the embeddings of view {number + 1}")
        self.embedding_gradients[number] = on_host(gradient) / self._scale


def on_host(tensor: Tensor) -> Tensor:
    """A copy that no operation in place changes."""
    return tensor.detach().to("cpu", copy=True)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Of floating point, in tuples, lists and dictionaries, in their order."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Embeddings):
        yield from _tensors((value.views, value.targets))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
