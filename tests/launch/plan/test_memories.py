"""Each process is computed once, and stages that are alike as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest

from launch.plan import process_memory
from launch.plan.account import ProcessAccount, StageAccount
from launch.plan.memories import ProcessMemories
from pipeline.config import Config
from tests.launch.plan.test_process_memory import LIMIT, VIT
from tests.pipeline.small import small_config
from workers.determinism.child import run_in_child

LAYERS = [f"encoder.layers.encoder_layer_{number}" for number in range(4)]
TRANSFORMER = {**VIT, "num_layers": 5, "cuts": ["conv_proj", *LAYERS]}
RESNET = {
    "backbone": "resnet34",
    "width": 8,
    "stem": "cifar",
    "cuts": [f"layer{n}.{m}" for n in (1, 2) for m in range(3)],
}


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The stages of which an account was made."""
    seen: list[tuple[int, ...]] = []

    def compute(config: Config, stages: Sequence[int], *, cuda: bool) -> ProcessAccount:
        seen.append(tuple(stages))
        empty = [StageAccount(stage=k, parameters=0, optimizer=0, gradients=0, kept=0, snapshot=0) for k in stages]
        return ProcessAccount(tuple(empty), 0, 0, 1, f"loss of stage {stages[-1]}")

    monkeypatch.setattr(process_memory, "process_memory", compute)
    return seen


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ({"model": TRANSFORMER}, [1, 2, 6]),
        ({"model": RESNET}, [1, 2, 4, 5, 7]),
        ({"model": TRANSFORMER, "stages": {4: {"memory": {"recompute": "units"}}}}, [1, 2, 4, 6]),
        ({"model": TRANSFORMER, "stages": {2: {"precision": {"dtype": "bf16"}}}}, [1, 2, 3, 4, 6]),
    ],
)
def test_stages_that_are_alike_are_computed_as_one(
    changed: dict[str, Any], stages: list[int], computed: list[tuple[int, ...]]
) -> None:
    config, memories = small_config(**changed), ProcessMemories()
    for _ in range(2):
        accounts = [memories(config, (index,), True) for index in range(1, config.num_stages + 1)]
    assert computed == [(index,) for index in stages]
    assert [account.stages[0].stage for account in accounts] == list(range(1, config.num_stages + 1))
    assert [account.moment for account in accounts] == [f"loss of stage {k}" for k in range(1, config.num_stages + 1)]


def test_a_device_is_not_like_another_nor_a_batch(computed: list[tuple[int, ...]]) -> None:
    config, memories = small_config(), ProcessMemories()
    for tried in (config, small_config(data={"batch_size": 4})):
        for on_gpu in (True, False):
            memories(tried, (2,), on_gpu)
    assert len(computed) == 4


@pytest.mark.processes
@pytest.mark.parametrize("model", [TRANSFORMER, RESNET])
def test_what_is_shared_is_what_would_be_computed(model: dict[str, Any]) -> None:
    config = small_config(model=model)
    every = range(1, config.num_stages + 1)

    def work() -> list[list[dict[str, Any]]]:
        memories = ProcessMemories()
        alone = [asdict(process_memory.process_memory(config, (index,))) for index in every]
        return [[asdict(memories(config, (index,), False)) for index in every], alone]

    outcome = run_in_child(work, 2 * LIMIT)
    assert outcome.result is not None, outcome
    assert outcome.result[0] == outcome.result[1]
