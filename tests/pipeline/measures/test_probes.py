"""Linear probes: the loop of the released code written out, last and best, the augmented pass, what is right."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.places import Place
from pipeline.measures.accuracy import count_correct, label_ranks
from pipeline.measures.probes import LinearProbe, fit, fit_augmented, steps
from pipeline.measures.protocols import BLOCKWISE, BYOL, LIDAR, Protocol

CPU = torch.device("cpu")
HERE, THERE = Place(1, "trunk"), Place(2, "expansion")


def samples(count: int, seed: int, classes: int = 8, width: int = 6) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=source)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    return centres[labels] + 1.5 * torch.randn(count, width, generator=source), labels


TRAIN, TEST = samples(600, 0), samples(300, 1)


def probe(protocol: Protocol, epochs: int | None = None, seed: int = 3, classes: int = 8) -> LinearProbe:
    protocol = protocol.with_epochs(epochs)
    return LinearProbe(6, classes, protocol, steps(len(TRAIN[0]), protocol), seed, CPU)


@pytest.mark.parametrize("protocol", [BLOCKWISE, BYOL, LIDAR], ids=lambda p: p.name)
def test_it_is_the_loop_of_the_papers(protocol: Protocol) -> None:
    epochs, orders = 8, probe(protocol)
    layer = nn.Linear(6, 8)
    layer.load_state_dict({"weight": orders.weight.detach().clone(), "bias": torch.zeros(8)})
    if protocol is LIDAR:
        optimizer: torch.optim.Optimizer = torch.optim.Adam(layer.parameters(), 0.01)
    elif protocol is BYOL:
        optimizer = torch.optim.SGD(layer.parameters(), 0.2, momentum=0.9, nesterov=True)
    else:
        optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9, weight_decay=1e-6)
    top1s, top5, step = [], 0.0, 0
    for epoch in range(epochs):
        orders.epoch = epoch
        for rows in orders.order(600).split(256):
            for group in optimizer.param_groups:
                group["lr"] = protocol.with_epochs(epochs).learning_rate(step, 3)
            optimizer.zero_grad()
            F.cross_entropy(layer(TRAIN[0][rows]), TRAIN[1][rows]).backward()
            optimizer.step()
            step += 1
        top1s.append((layer(TEST[0]).argmax(1) == TEST[1]).double().mean().item())
        top5 = (layer(TEST[0]).topk(5).indices == TEST[1][:, None]).any(1).double().mean().item()
    fitted = probe(protocol, epochs)
    score = fit(fitted, *TRAIN, *TEST)
    torch.testing.assert_close(fitted.weight, layer.weight)
    torch.testing.assert_close(fitted.bias, layer.bias)
    assert (score.top1, score.best_top1, score.top5) == (top1s[-1], max(top1s), top5)
    assert score.epochs == epochs
    assert score.top1 > 0.3
    assert score.top1 <= score.top5 <= score.best_top5 < 1


def test_weights_and_order_are_keyed_and_nothing_else_is_drawn() -> None:
    def fitted(seed: int) -> Tensor:
        found = probe(LIDAR, 2, seed)
        fit(found, *TRAIN, *TEST)
        return found.weight

    first = fitted(3)
    torch.manual_seed(1234)
    before = torch.get_rng_state()
    assert torch.equal(fitted(3), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(fitted(4), first)
    one = probe(LIDAR)
    orders = [one.order(600)]
    one.end_epoch()
    orders.append(one.order(600))
    assert not torch.equal(*orders)
    assert all(torch.equal(order.sort().values, torch.arange(600)) for order in orders)
    assert probe(BLOCKWISE).weight.std().item() == pytest.approx(0.01, rel=0.4)


def test_the_best_epoch_may_be_better_than_the_last() -> None:
    source = torch.Generator().manual_seed(0)
    noise = torch.randn(600, 6, generator=source), TRAIN[1]
    score = fit(probe(LIDAR, 10), *noise, *TEST)
    assert score.best_top1 > score.top1
    assert score.best_top5 >= score.top5


def test_a_test_class_that_the_training_set_lacks_counts_as_an_error() -> None:
    known = fit(probe(LIDAR, 5), *TRAIN, *TEST)
    labels = torch.where(TEST[1] == 0, 8, TEST[1])
    score = fit(probe(LIDAR, 5), *TRAIN, TEST[0], labels)
    assert score.top5 <= 1 - (TEST[1] == 0).double().mean().item() + 1e-9
    assert score.top1 < known.top1
    two = TRAIN[0], TRAIN[1] % 2
    few = fit(probe(LIDAR, 5, classes=2), *two, TEST[0], TEST[1] % 3)  # the third class is unknown
    assert few.top5 == pytest.approx((TEST[1] % 3 < 2).double().mean().item())


def test_no_gradient_reaches_the_features() -> None:
    features = TRAIN[0].clone().requires_grad_()
    with torch.no_grad():
        probe(LIDAR).step(features, TRAIN[1])
    assert features.grad is None


def epoch_of(one: LinearProbe, epoch: int, size: int) -> Iterator[tuple[dict[Place, Tensor], Tensor]]:
    """The same features in the order in which `one` would take them, in batches of another size."""
    one.epoch = epoch
    for rows in one.order(600).split(size):
        yield {HERE: TRAIN[0][rows], THERE: 2 * TRAIN[0][rows]}, TRAIN[1][rows]


@pytest.mark.parametrize("size", [37, 256, 300, 600])
def test_the_augmented_pass_fits_all_probes_as_if_each_were_alone(size: int) -> None:
    small = BLOCKWISE.__class__("small", "sgd", 0.1, 4, "cosine_by_epoch", batch_size=50)
    protocols = {"lidar": LIDAR.with_epochs(3), "blockwise": BLOCKWISE.with_epochs(5), "small": small}
    alone = {}
    for place, scale in ((HERE, 1), (THERE, 2)):
        for name, protocol in protocols.items():
            one = probe(protocol)
            alone[place, name] = (fit(one, scale * TRAIN[0], TRAIN[1], scale * TEST[0], TEST[1]), one.weight)
    together = {key: probe(protocols[key[1]]) for key in alone}
    epochs = (epoch_of(probe(LIDAR), epoch, size) for epoch in range(5))
    found = fit_augmented(together, epochs, {HERE: TEST[0], THERE: 2 * TEST[0]}, TEST[1])
    for key, (score, weight) in alone.items():
        torch.testing.assert_close(together[key].weight, weight)
        assert found[key] == score
    assert [found[HERE, name].epochs for name in protocols] == [3, 5, 4]


def test_too_few_epochs_are_not_passed_over() -> None:
    epochs = (epoch_of(probe(LIDAR), epoch, 600) for epoch in range(4))
    with pytest.raises(ValueError, match="fewer epochs"):
        fit_augmented({(HERE, "lidar"): probe(LIDAR, 5)}, epochs, {HERE: TEST[0]}, TEST[1])


def test_ranks_of_ties_of_unknown_labels_and_of_what_is_no_number() -> None:
    nan, inf = float("nan"), float("inf")
    scores = torch.tensor([[1.0, 3, 2], [2, 2, 2], [2, 2, 2], [0, nan, 1], [nan, 1, 0], [inf, inf, 0], [1, 2, 3]])
    labels = torch.tensor([0, 0, 2, 1, 1, 1, 3])
    assert label_ranks(scores, labels).tolist() == [2, 0, 2, 3, 0, 1, 3]
    assert count_correct(scores, labels) == (2, 5)
    assert count_correct(torch.tensor([[1.0, 2, 3]]), torch.tensor([-1])) == (0, 0)


def test_top5_is_the_five_highest() -> None:
    scores = torch.arange(7.0).repeat(7, 1)
    assert count_correct(scores, torch.arange(7)) == (1, 5)
