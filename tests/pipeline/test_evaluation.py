"""The linear probe and the features that it reads."""

from __future__ import annotations

import pytest
import torch

from pipeline.config_loading import parse_config
from pipeline.evaluation.features import extract_features
from pipeline.evaluation.linear import linear_probe_accuracy
from pipeline.stage import Stage


def clusters(count: int, seed: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=source)
    centres = 5 * torch.eye(4, 6)
    return centres[labels] + spread * torch.randn(count, 6, generator=source), labels


def test_the_probe_reads_what_is_linearly_there_and_nothing_else() -> None:
    train, test = clusters(400, 0, 0.5), clusters(200, 1, 0.5)
    assert linear_probe_accuracy(*train, *test) == 1.0
    noise = linear_probe_accuracy(*clusters(400, 0, 500.0), *clusters(400, 1, 500.0))
    assert 0.1 < noise < 0.4


def test_the_probe_does_not_care_for_scale_and_is_deterministic() -> None:
    (x, y), (u, v) = clusters(300, 0, 3.0), clusters(300, 1, 3.0)
    accuracy = linear_probe_accuracy(x, y, u, v)
    assert 0.5 < accuracy < 1.0
    assert linear_probe_accuracy(x, y, u, v) == accuracy
    assert linear_probe_accuracy(1000 * x + 7, y, 1000 * u + 7, v) == pytest.approx(accuracy, abs=0.01)


def test_features_of_all_blocks_are_those_of_each_block() -> None:
    config = parse_config(
        {
            "model": {"backbone": "resnet18", "width": 4, "stem": "strided"},
            "head": {"width": 8, "projector": [8]},
            "data": {"batch_size": 4, "image_size": 16},
        }
    )
    stages = [Stage(config, index, 1) for index in (1, 2, 3, 4)]
    images = torch.randint(0, 256, (10, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = extract_features(stages, images.split(3))
    assert [tuple(f.trunk.shape) for f in features] == [(10, 4), (10, 8), (10, 16), (10, 32)]
    assert [tuple(f.expansion.shape) for f in features] == [(10, 8)] * 4
    with torch.inference_mode():
        second = stages[1].trunk(stages[0].trunk(images))
        torch.testing.assert_close(features[1].trunk, second.mean(dim=(2, 3)))
        torch.testing.assert_close(features[1].expansion, stages[1].head.features(second))
    assert not any(stage.training for stage in stages)
