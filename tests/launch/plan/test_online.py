"""What is said that measures beside the training hold, against real ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch

from launch.plan.process_memory import process_memory
from pipeline.config import Config
from pipeline.stage.stage import Stage
from tests.launch.plan.measured import measure_online
from tests.launch.plan.test_process_memory import LIMIT, WIDE
from tests.pipeline.small import small_config
from workers.determinism.child import run_in_child

pytestmark = pytest.mark.processes
ONLINE = {"linear": True, "knn_bank": 512, "quality_every": 1, "quality_samples": 256}


def stages_of(config: Config, index: int) -> list[dict[str, Any]]:
    outcome = run_in_child(lambda: asdict(process_memory(config, [index])), LIMIT)
    assert outcome.result is not None, outcome
    return [outcome.result]


@pytest.mark.parametrize("kept", [("linear",), ("knn_bank",), ("quality_every", "quality_samples"), tuple(ONLINE)])
def test_probe_and_banks_are_as_large_as_was_said(kept: tuple[str, ...]) -> None:
    """With gradients and momenta, between two steps; and in a snapshot."""
    online = {key: ONLINE[key] for key in kept}
    config, without = (small_config(**WIDE, evaluation={"online": values}) for values in (online, {}))
    stage = Stage(config, 2, 1)
    measure_online(config, [stage])
    assert stage.online is not None
    stage.online.collect(1, torch.randn(32, 64, 16, 16))
    if len(stage.online._views) < stage.online._views_wanted:
        stage.online.collect(2, torch.randn(32, 64, 16, 16))
    stage.online.measure(0, torch.arange(32) % 10 if config.uses_labels else None)
    probe = stage.online.probe
    tensors = [] if probe is None else [*probe.parameters(), *probe.buffers(), *(p.grad for p in probe.parameters())]
    tensors += [] if probe is None else [state["momentum_buffer"] for state in probe.optimizer.state.values()]
    banks = [bank for bank in (stage.online._bank, stage.online._recent) if bank is not None]
    tensors += [tensor for bank in banks for tensor in (bank._features, bank._labels)]
    (said,), (bare,) = stages_of(config, 2), stages_of(without, 2)
    held = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    assert said["stages"][0]["online"] == held > bare["stages"][0]["online"] == 0
    assert said["peak"] >= bare["peak"] + held - sum(t.nbytes for t in tensors[2:5] if probe is not None)
    in_snapshot = sum(tensor.nbytes for tensor in stage.online.tensors().values())
    assert said["stages"][0]["snapshot"] - bare["stages"][0]["snapshot"] == in_snapshot


@pytest.mark.slow
def test_a_bank_in_gibibytes_is_counted_without_taking_them() -> None:
    config = small_config(**WIDE, evaluation={"online": {"knn_bank": 2**22}})
    (said,) = stages_of(config, 2)
    assert said["stages"][0]["online"] == 2**22 * (64 * 4 + 8)
    assert said["peak"] > said["stages"][0]["online"]
