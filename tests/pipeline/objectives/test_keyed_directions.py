"""LeJEPA's directions: one draw for each seed, step and stage, whoever computes the step."""

from __future__ import annotations

from typing import Any

import torch

from pipeline.config.objectives import LeJEPAConfig
from pipeline.objectives.lejepa import LeJEPA, lejepa_loss
from pipeline.stage.stage import Stage
from tests.pipeline.small import batch_of, small_config

CONFIG = LeJEPAConfig(directions=8)
LIKE = torch.empty(2, 4, 16)


def directions_of(seed: int, step: int, stage: int) -> torch.Tensor:
    return LeJEPA(CONFIG, 16, seed, stage).directions(LIKE, step)


def test_unit_vectors_one_draw_for_each_seed_step_and_stage() -> None:
    keys = [(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 2)]
    draws = [directions_of(*key) for key in keys]
    torch.manual_seed(5)  # nothing that others draw has an influence
    assert all(torch.equal(directions_of(*key), draw) for key, draw in zip(keys, draws, strict=True))
    assert len({draw.numpy().tobytes() for draw in draws}) == len(keys)
    for draw in draws:
        assert draw.shape == (16, 8)
        torch.testing.assert_close(draw.norm(dim=0), torch.ones(8))


def test_a_stage_takes_those_of_its_own_step() -> None:
    config = small_config(objective={"kind": "lejepa", "directions": 8})
    stage, seen = Stage(config, 1, 4), []

    def compare(_module: Any, inputs: tuple[Any, ...], result: tuple[torch.Tensor, dict[str, torch.Tensor]]) -> None:
        z = torch.stack(inputs[0].views)
        directions = LeJEPA(CONFIG, z.shape[-1], config.seed, stage=1).directions(z, len(seen))
        seen.append(torch.equal(result[0], lejepa_loss(z, directions, CONFIG, global_views=2)[0]))

    assert stage.objective is not None
    stage.objective.register_forward_hook(compare)
    for step in range(3):
        stage(batch_of(config, step), step, 0.0)
        stage.update(step)
    assert seen == [True] * 3
