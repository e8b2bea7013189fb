"""Steps of a real stage whose time is divided among the parts of the stage, by the clock of its device.

    forward()   overhead | images | unit, view by view | overhead: noise, output in one tensor
    update()    head | loss | backward of loss, of head and noise, of unit (view by view) | optimizer | overhead

The spans of a stage say where its parts begin and end; hooks on tensors say it inside of a backward pass. So what is
timed is what a run computes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pipeline.objectives import Embeddings
from pipeline.stage.stage import Stage
from workers.stage.device_clock import DeviceClock

TimedPart = Literal[
    "forward", "images", "unit", "update", "target", "head", "loss", "backward of the loss", "backward of the end",
    "backward of the unit", "optimizer",
]  # fmt: skip
"""`images` is what a stage does to its input first, `target` the block in the target network (BYOL), whose head is in
`head`; `forward` and `update` are what is left of both calls."""
SPANS: dict[str, TimedPart] = {
    "update": "update",
    "head": "head",
    "loss": "loss",
    "backward": "backward of the loss",
    "optimizer": "optimizer",
}


class PartClock:
    """Books the time from one part to the next.

    Args:
        clock: of the device.
    """

    def __init__(self, clock: DeviceClock) -> None:
        self._clock = clock
        self.now: TimedPart = "forward"
        """The part that is being computed."""
        self.seconds: dict[TimedPart, float] = defaultdict(float)

    def start(self) -> None:
        """Begin a step, once the device has nothing else to do."""
        self.now, self.seconds = "forward", defaultdict(float)
        self._clock.start()

    def enter(self, part: TimedPart) -> None:
        """What follows is of `part`."""
        self._clock.lap(None, booked=partial(self._book, self.now))
        self.now = part

    def stop(self) -> dict[TimedPart, float]:
        """End the step; the seconds of every part."""
        end = self._clock.lap(None, booked=partial(self._book, self.now))
        if end.event is not None:
            end.event.synchronize()
        self._clock.settle()
        return self.seconds

    def _book(self, part: TimedPart, began: float, ended: float) -> None:
        self.seconds[part] += ended - began


class TimedStage:
    """A stage whose steps are timed.

    Args:
        stage: is given spans and hooks.
        clock: of its device.
        last: whether the gradient of the block's output is as the head makes it; else it is laid out in memory as the
            next unit of a stage would do it.
    """

    def __init__(self, stage: Stage, clock: DeviceClock, *, last: bool = True) -> None:
        self._last = last
        self.stage, self._clock = stage, PartClock(clock)
        self.output: list[Tensor] = []
        """Of the last step: what the block made of every view, as the next unit of a stage would get it."""
        self.skipped = False
        """Whether the last step moved nothing, because its loss or a gradient was not finite."""
        self._inside = False
        self._embeddings: Embeddings | None = None
        self._kept: dict[TimedPart, dict[int, Tensor]] | None = None
        self._others: set[int] = set()
        stage.span, stage.schedule = self._span, lambda step: 0.0
        stage.block.register_forward_hook(self._after_block)
        assert stage.objective is not None
        stage.objective.register_forward_pre_hook(self._before_objective)
        if stage.target is not None:
            for module, part in ((stage.target.block, "target"), (stage.target.head, "head")):
                module.register_forward_pre_hook(lambda *_, part=part: self._clock.enter(part))
                module.register_forward_hook(lambda *_: self._clock.enter("update"))
        self._prepared = stage.inputs.prepared
        setattr(stage.inputs, "prepared", self._prepare)  # noqa: B010  # a method, which mypy lets nobody assign

    def step(
        self, views: Sequence[Tensor], number: int, noise: float = 0.0, *, labels: Tensor | None = None, inside: bool
    ) -> dict[TimedPart, float]:
        """Seconds of the parts of one step, which changes no weight.

        Args:
            views: as they enter the stage.
            number: of the step.
            noise: its level.
            labels: `[B]`, for an objective that uses them.
            inside: compute the gradient of the input too, as if other units of the stage came before.

        Raises:
            TrainingError: the loss was not finite too many times in a row.
        """
        self.output, self._inside = [], inside
        self._clock.start()
        self.stage(list(views), number, noise)
        for output in self.stage.outputs:
            self._keep("forward", output)
        self.skipped = self.stage.update(number, labels).skipped
        return self._clock.stop()

    def optimizer_of_end(self) -> float:
        """Seconds of the optimizer on the gradients of head and objective alone; those of the block are gone then."""
        for parameter in self.stage.block.parameters():
            parameter.grad = None
        self._clock.start()
        self.stage.engine.step()
        return sum(self._clock.stop().values())

    def loss(self, rows: int, labels: Tensor | None = None) -> float:
        """Seconds of the loss of a batch of `rows` images and of its gradient: the embeddings of the last step, again
        and again."""
        last, objective, compute = self._embeddings, self.stage.objective, self.stage.compute
        assert last is not None
        assert objective is not None

        def several(z: Tensor) -> Tensor:
            return repeated(z.detach(), rows).requires_grad_(z.requires_grad)

        views, targets = (tuple(map(several, zs)) for zs in (last.views, last.targets))
        patch = None if last.patch is None else several(last.patch)
        self._clock.start()
        with compute.full_precision():
            value, _ = objective(Embeddings(views, targets, labels, patch, last.step))
        torch.autograd.backward(value)
        return sum(self._clock.stop().values())

    @contextmanager
    def counting_kept(self) -> Iterator[Callable[[TimedPart], int]]:
        """Within it, count what autograd keeps of a step, weights left out; gives the bytes of a part.

        Of the unit, its output counts, and its input does not, if that is the output of another.
        """
        kept: dict[TimedPart, dict[int, Tensor]] = defaultdict(dict)
        self._kept = kept
        self._others = {p.untyped_storage().data_ptr() for p in self.stage.parameters()}

        def note(tensor: Tensor) -> Tensor:
            self._keep(self._clock.now, tensor)
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor):
            yield lambda part: sum(tensor.untyped_storage().nbytes() for tensor in kept[part].values())
        self._kept = None

    def _keep(self, part: TimedPart, tensor: Tensor) -> None:
        place = tensor.untyped_storage().data_ptr()
        if self._kept is not None and not any(place in known for known in (self._others, *self._kept.values())):
            self._kept[part][place] = tensor  # held, so that no other tensor takes its place

    def _prepare(self, view: Tensor) -> Tensor:
        self._clock.enter("images")
        x = self._prepared(view)
        if self.stage.index > 1:
            self._others.add(x.untyped_storage().data_ptr())
        if self._inside:
            x = x.detach().requires_grad_()
            self._enter_at_gradient(x, "backward of the end")
        self._clock.enter("forward")
        return x

    @contextmanager
    def _span(self, name: str) -> Iterator[None]:
        before = self._clock.now
        self._clock.enter(SPANS.get(name, "unit"))
        yield
        self._clock.enter(before)

    def _enter_at_gradient(self, tensor: Tensor, part: TimedPart) -> None:
        tensor.register_hook(lambda gradient: self._clock.enter(part))  # type: ignore[no-untyped-call]

    def _after_block(self, block: nn.Module, inputs: Any, output: Tensor) -> None:
        self.output.append(output.detach())
        self._keep("unit", output)
        if output.requires_grad:
            output.register_hook(self._at_gradient_of_block)  # type: ignore[no-untyped-call]

    def _at_gradient_of_block(self, gradient: Tensor) -> Tensor:
        if not self._last:
            x = self.stage.compute.in_memory_format(gradient)
            gradient = x.contiguous() if x is gradient and not x.is_contiguous() else x
        self._clock.enter("backward of the unit")
        return gradient

    def _before_objective(self, objective: nn.Module, inputs: tuple[Embeddings]) -> None:
        self._embeddings = embeddings = inputs[0]
        for z in (*embeddings.views, *(() if embeddings.patch is None else (embeddings.patch,))):
            if z.requires_grad:
                self._enter_at_gradient(z, "backward of the end")


def repeated(tensor: Tensor, rows: int) -> Tensor:
    """`[B, ...]`, or its rows again and again, as `[rows, ...]`."""
    times = -(-rows // len(tensor))
    return (tensor.repeat(times, *(1 for _ in tensor.shape[1:])) if times > 1 else tensor)[:rows]
