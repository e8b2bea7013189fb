"""Few labels: the choice of images, and training the blocks on them without touching the run's own."""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, pi

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.places import Place
from pipeline.evaluation.few_label import FineTuned, epoch_batches, few_label_indices, fine_tune, score
from pipeline.serial import build_stages
from pipeline.stage.stage import Stage
from tests.pipeline.small import same, small_config

LABELS = torch.tensor([0] * 200 + [1] * 100 + [3] * 20 + [4])[
    torch.randperm(321, generator=torch.Generator().manual_seed(0))
]


@pytest.mark.parametrize(("share", "expected"), [(0.01, [2, 1, 1, 1]), (0.1, [20, 10, 2, 1]), (1.0, [200, 100, 20, 1])])
def test_every_class_gives_the_same_share_and_one_at_least(share: float, expected: list[int]) -> None:
    chosen = few_label_indices(LABELS, share, 0)
    assert torch.equal(chosen, chosen.unique())
    assert LABELS[chosen].bincount()[[0, 1, 3, 4]].tolist() == expected


def test_the_choice_is_keyed_and_a_small_one_is_part_of_a_large_one() -> None:
    few, more = (set(few_label_indices(LABELS, share, 0).tolist()) for share in (0.01, 0.1))
    assert few < more
    assert set(few_label_indices(LABELS, 0.1, 0).tolist()) == more
    assert set(few_label_indices(LABELS, 0.1, 1).tolist()) != more


@pytest.mark.parametrize(("samples", "sizes"), [(600, [256, 256, 88]), (513, [256, 257]), (5, [5]), (1, [1])])
def test_batches_hold_every_sample_once_and_never_a_single_one_beside_others(samples: int, sizes: list[int]) -> None:
    batches = epoch_batches(samples, 0, 1)
    assert [len(batch) for batch in batches] == sizes
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(samples))
    assert samples < 9 or not torch.equal(torch.cat(batches), torch.cat(epoch_batches(samples, 0, 2)))


def network(count: int = 2) -> list[Stage]:
    stages = build_stages(small_config(), 4)[:count]
    for stage in stages:
        stage.eval()
        stage.requires_grad_(False)
    return stages


def images(count: int = 24) -> tuple[Tensor, Tensor]:
    """Dark ones, and bright ones."""
    source = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 2
    pixels = torch.randint(0, 100, (count, 16, 16, 3), generator=source, dtype=torch.uint8)
    return pixels + (100 * labels[:, None, None, None]).to(torch.uint8), labels


def epochs(count: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
    pixels, labels = images()
    for epoch in range(count):
        yield [(pixels[rows], labels[rows]) for rows in epoch_batches(len(labels), 0, epoch, 12)]


def loss_of(tuned: FineTuned) -> float:
    pixels, labels = images()
    with torch.no_grad():
        return F.cross_entropy(tuned.eval()(pixels), labels).item()


@pytest.mark.parametrize(("feature", "width"), [("trunk", 8), ("expansion", 16), ("projector", 16)])
def test_it_learns_and_the_run_keeps_its_own(feature: str, width: int) -> None:
    stages = network()
    kept = [{name: tensor.clone() for name, tensor in stage.state_dict().items()} for stage in stages]
    width = stages[1].trunk(stages[0].trunk(images()[0])).shape[1] if feature == "trunk" else width
    tuned = FineTuned(stages, Place(2, feature), width, 2, seed=0)  # type: ignore[arg-type]
    assert loss_of(tuned) > 0.6
    weights = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    fine_tune(tuned, epochs(15), 15, 0.005, 0.1, seed=0)
    assert loss_of(tuned) < 0.3
    assert score(tuned, [images()])[0] > 0.9
    moved = {name for name, tensor in tuned.state_dict().items() if not torch.equal(tensor, weights[name])}
    assert {"blocks.0.conv1.weight", "classifier.weight"} <= moved
    assert any(name.endswith("running_mean") for name in moved)  # batch norm is in training mode, as released
    assert all(same(stage.state_dict(), state) for stage, state in zip(stages, kept, strict=True))
    assert not any(p.requires_grad or p.grad is not None for stage in stages for p in stage.parameters())
    assert not any(stage.training for stage in stages)


def test_before_training_it_reads_the_features_of_the_run() -> None:
    stages, pixels = network(), images()[0]
    tuned = FineTuned(stages, Place(2, "expansion"), 16, 2, seed=0).eval()
    with torch.no_grad():
        features = stages[1].features(stages[1].trunk(stages[0].trunk(pixels)))
        assert features is not None
        torch.testing.assert_close(tuned(pixels), F.linear(features, tuned.classifier.weight))


def test_rates_are_two_cosines_that_move_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []
    step = torch.optim.SGD.step

    def recorded(optimizer: torch.optim.SGD) -> None:
        group = optimizer.param_groups[0]
        assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 0, False)
        seen.append([group["lr"] for group in optimizer.param_groups])
        step(optimizer)

    monkeypatch.setattr("torch.optim.SGD.step", recorded)
    fine_tune(FineTuned(network(1), Place(1, "trunk"), 8, 2, seed=0), epochs(4), 4, 0.005, 0.5, seed=0)
    cosine = [(1 + cos(pi * epoch / 4)) / 2 for epoch in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert seen == [pytest.approx([0.5 * share, 0.005 * share]) for share in cosine]


def test_the_same_numbers_every_time_whatever_was_drawn_before() -> None:
    def tuned() -> dict[str, Tensor]:
        found = FineTuned(network(), Place(2, "expansion"), 16, 2, seed=0)
        fine_tune(found, epochs(2), 2, 0.005, 0.5, seed=0)
        return found.state_dict()

    first = tuned()
    torch.manual_seed(77)
    assert same(tuned(), first)


def test_a_class_that_the_classifier_lacks_is_an_error() -> None:
    tuned = FineTuned(network(1), Place(1, "trunk"), 8, 2, seed=0)
    assert score(tuned, [(images()[0], torch.full((24,), 2))]) == (0.0, 0.0)
