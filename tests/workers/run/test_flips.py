"""`faults` that flip a bit: at their stage, step and moment, once per run directory; or they say that there is none."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from pipeline.config.faults import FaultConfig
from pipeline.stage.stage import Stage
from tests.pipeline.small import STEPS_PER_EPOCH, small_config, state, views
from workers.run.faults import Faults, InjectedFault
from workers.run.files import RunDir


def test_a_bit_is_flipped_once_per_run_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fault = FaultConfig(kind="flip_weight", stage=2, step=1, draw=4)
    stage = Stage(small_config(), 2, STEPS_PER_EPOCH)
    for _ in range(2):
        faults = Faults([fault], RunDir(tmp_path), [2], 1)
        before = state(stage)
        for what, step in (("weight", 0), ("message", 1), ("gradient", 1)):
            faults.exposed(2, what, step, stage.state_dict)  # type: ignore[arg-type]
            assert all(before[name].equal(tensor) for name, tensor in state(stage).items())
        faults.exposed(2, "weight", 1, stage.state_dict)
    assert [record.getMessage().startswith("step 1: flipped bit ") for record in caplog.records] == [True]


def test_where_there_is_no_bit_the_run_ends(tmp_path: Path) -> None:
    fault = FaultConfig(kind="flip_optimizer", stage=1, step=0)
    stage = Stage(small_config(), 1, STEPS_PER_EPOCH)
    stage.exposed = partial(Faults([fault], RunDir(tmp_path), [1], 1).exposed, 1)
    stage(views(0), 0, 0.0)
    with pytest.raises(InjectedFault, match=r"flip_optimizer .*there is nothing to flip"):
        stage.update(0)


def test_the_state_of_an_optimizer_of_other_tensors_than_the_parameters_is_shown_too(tmp_path: Path) -> None:
    """DeepSpeed's are of one vector for each group, and of masters in fp32."""
    stage = Stage(small_config(), 1, STEPS_PER_EPOCH)
    seen: list[dict[str, torch.Tensor]] = []
    stage.exposed = lambda what, step, tensors: seen.append(dict(tensors())) if what == "optimizer" else None
    state, piece, moment = stage.optimizer.state, torch.zeros(7), torch.ones(7)
    state[piece] = {"exp_avg": moment, "step": 3}
    stage.prepare_gradients(1)
    assert list(seen[0]) == ["exp_avg of piece 1"]
    assert seen[0]["exp_avg of piece 1"] is moment, "as it is, not a copy"
