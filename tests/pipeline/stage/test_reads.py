"""How often a step waits for its device: each number that is read from it waits until all that was launched is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.serial import build_stages, step_function
from tests.pipeline.small import STEPS_PER_EPOCH, small_config, views

READS = {"tolist", "numpy", "cpu", "__array__"}
"""Functions of a tensor that copy it to the host; `item` and conversions to numbers are one operation below them."""


class Reads(TorchFunctionMode):
    """Counts the copies to the host while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self._scalars = 0, _Scalars()

    def __enter__(self) -> Reads:
        self._scalars.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._scalars.__exit__(*error)
        self.count += self._scalars.count

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        self.count += getattr(func, "__name__", "") in READS
        return func(*args, **(kwargs or {}))


class _Scalars(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_numbers_that_are_read_are_counted() -> None:
    with Reads() as reads:
        x = torch.ones(2)
        x.tolist(), x.sum().item(), float(x[0]), bool(x[0] > 0), x.numpy()
    assert reads.count == 5


OBJECTIVES = [
    {"kind": "barlow_twins"}, {"kind": "simclr"}, {"kind": "vicreg"}, {"kind": "byol"},
    {"kind": "lejepa"}, {"kind": "supervised"},
]  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES, ids=[found["kind"] for found in OBJECTIVES])
@pytest.mark.parametrize("mode", ["simultaneous", "end_to_end"])
def test_a_step_reads_from_its_device_once_for_every_loss(mode: str, objective: dict[str, Any]) -> None:
    config = small_config(mode=mode, objective=objective, metrics={"norms_every": 0})
    stages = build_stages(config, STEPS_PER_EPOCH)
    one_step = step_function(config, stages, torch.device("cpu"))
    labels = torch.arange(8) % 4
    for step in range(2):
        with Reads() as reads:
            reports = list(one_step(stages, views(step), step, [0.0] * 4, labels=labels))
        assert reads.count == sum(report.loss is not None for report in reports)


def reads_of_four_steps(**sections: Any) -> list[float]:
    """How often a stage reads from its device in each of the first four steps."""
    config = small_config(**sections)
    stages = build_stages(config, STEPS_PER_EPOCH)
    one_step = step_function(config, stages, torch.device("cpu"))
    counts = []
    for step in range(4):
        with Reads() as reads:
            list(one_step(stages, views(step), step, [0.0] * 4))
        counts.append(reads.count / len(stages))
    return counts


def test_a_step_that_measures_norms_reads_them_too() -> None:
    assert reads_of_four_steps(metrics={"norms_every": 2}) == [3, 1, 3, 1]


def test_a_step_whose_digests_are_recorded_reads_them_at_its_end_all_at_once() -> None:
    assert reads_of_four_steps(metrics={"norms_every": 0}, digests={"every": 2}) == [1, 2, 1, 2]


def test_numbers_read_together_are_those_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any number format, and of the parameter that a user's loss may name a term, before the step changes it."""
    (stage, *_) = build_stages(small_config(), STEPS_PER_EPOCH)
    parameter = next(stage.head.parameters())  # type: ignore[union-attr]
    scale = parameter.detach().flatten()[0]  # shares its memory
    terms = {"half": torch.tensor(1 / 3).bfloat16(), "whole": torch.tensor(7), "double": torch.tensor(0.1).double()}
    stage(views(0), STEPS_PER_EPOCH, 0.0)
    loss = stage.backward(STEPS_PER_EPOCH)
    wanted = {name: term.item() for name, term in terms.items()} | {"scale": scale.item()}
    monkeypatch.setattr(stage, "_loss", (loss, {**terms, "scale": scale}))
    report = stage.finish(STEPS_PER_EPOCH)
    assert report.loss == loss.item()
    assert report.terms == wanted
    assert scale.item() != wanted["scale"], "the step has changed it"


class _Made(TorchFunctionMode):
    """Notes tensors that are made out of what Python holds: on a GPU each is a copy that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if (name := getattr(func, "__name__", "")) in {"tensor", "as_tensor", "from_numpy", "frombuffer", "asarray"}:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=[found["kind"] for found in OBJECTIVES])
@pytest.mark.parametrize("mode", ["simultaneous", "end_to_end"])
def test_a_steady_step_writes_nothing_to_its_device(mode: str, objective: dict[str, Any]) -> None:
    """But its batch and its labels, which the loop gives it; the first step may make what it keeps."""
    config = small_config(mode=mode, objective=objective, digests={"every": 1})
    stages = build_stages(config, STEPS_PER_EPOCH)
    one_step = step_function(config, stages, torch.device("cpu"))
    labels, made = torch.arange(8) % 4, list[list[str]]()
    for step in range(3):
        with _Made() as notes:
            list(one_step(stages, views(step), step, [0.5] * 4, labels=labels))
        made.append(notes.names)
    assert made[0], "what normalises images"
    assert made[1:] == [[], []]
