"""The linear probe, the embeddings that it reads, and the table that a run ends with."""

from __future__ import annotations

import pytest
import torch

from pipeline.config.places import FEATURES, Place
from pipeline.evaluation.blocks import BlockScore, score_blocks
from pipeline.evaluation.feature_set import FeatureSet
from pipeline.evaluation.features import embed, places_of
from pipeline.measures.linear import linear_probe_accuracy
from pipeline.stage.stage import Stage
from pipeline.validation.loading import parse_config


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


def network(**settings: object) -> list[Stage]:
    values: dict[str, object] = {
        "model": {"backbone": "resnet18", "width": 4, "stem": "strided"},
        "head": {"width": 8, "projector": [8, 6]},
        "data": {"batch_size": 4, "image_size": 16},
    }
    config = parse_config({**values, **settings})
    return [Stage(config, index, 1).eval() for index in (1, 2, 3, 4)]


def images(count: int = 10) -> torch.Tensor:
    return torch.randint(0, 256, (count, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_embeddings_of_all_blocks_are_those_of_each_block() -> None:
    stages = network()
    places = places_of(stages, FEATURES)
    assert [str(place) for place in places[:4]] == [
        "block 1 trunk",
        "block 1 expansion",
        "block 1 projector",
        "block 2 trunk",
    ]
    found = embed(stages, images(), places)
    assert list(found) == list(places)
    assert [tuple(found[Place(block, "trunk")].shape) for block in (1, 2, 3, 4)] == [
        (10, 4),
        (10, 8),
        (10, 16),
        (10, 32),
    ]
    assert {tuple(found[Place(block, "expansion")].shape) for block in (1, 2, 3, 4)} == {(10, 8)}
    with torch.no_grad():
        second = stages[1].trunk(stages[0].trunk(images()))
        torch.testing.assert_close(found[Place(2, "trunk")], second.mean(dim=(2, 3)))
        torch.testing.assert_close(found[Place(2, "expansion")], stages[1].head.features(second))
        torch.testing.assert_close(found[Place(2, "projector")], stages[1].head(second))


def test_a_classifier_can_be_trained_on_embeddings() -> None:
    found = embed(network(), images(), [Place(1, "trunk")])
    weight = torch.zeros(4, requires_grad=True)
    (found[Place(1, "trunk")] * weight).sum().backward()
    assert weight.grad is not None


def test_the_network_runs_no_further_than_the_last_place(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = network()
    monkeypatch.setattr(Stage, "features", lambda stage, x: pytest.fail("no feature of a head was asked for"))
    found = embed(stages[:2], images(), [Place(2, "trunk")])
    monkeypatch.setattr(stages[2], "trunk", lambda x: pytest.fail("block 3 was not asked for"))
    assert torch.equal(embed(stages, images(), [Place(2, "trunk")])[Place(2, "trunk")], found[Place(2, "trunk")])


def test_a_block_without_a_head_has_a_trunk_only() -> None:
    stages = network(mode="end_to_end")
    assert [place.key for place in places_of(stages, FEATURES, (3, 4))] == [
        "3.trunk", "4.trunk", "4.expansion", "4.projector",
    ]  # fmt: skip


def test_the_table_has_a_row_for_each_block_and_fits_only_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    (x, y), (u, v) = clusters(60, 0, 3.0), clusters(40, 1, 3.0)
    places = [Place(1, "trunk"), Place(1, "expansion"), Place(2, "trunk"), Place(2, "projector")]
    train, test = FeatureSet(dict.fromkeys(places, x), y), FeatureSet(dict.fromkeys(places, u), v)
    fitted = linear_probe_accuracy(x, y, u, v)
    known = {Place(1, "trunk"): 0.25, Place(2, "trunk"): 0.0}
    assert score_blocks(train, test, known) == [BlockScore(1, 0.25, fitted), BlockScore(2, 0.0, None)]
