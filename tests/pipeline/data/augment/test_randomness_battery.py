"""Keyed words pass a statistical battery, within a key and between keys; generators with known faults fail it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats

from pipeline.data.augment.keyed_draws import Purpose, keyed_bits, keyed_normals
from pipeline.data.sampler import StepPlan
from tests.pipeline.data.augment.battery import STREAM_TESTS, SUSPECT, Words, battery, unit

pytestmark = pytest.mark.long

HOPELESS = 1e-10
"""What a fault must at least come down to, in the test that is there for it."""
Key = tuple[int, int, int, int]


def keyed(purpose: Purpose) -> Callable[[Key, int], Words]:
    """As `pipeline.data.augment.parameters` keys the views."""
    return lambda key, count: keyed_bits(key[0], purpose, (key[3], key[2], key[1]), count)


@pytest.mark.parametrize("purpose", [Purpose.VIEW, Purpose.PIXEL_NOISE], ids=lambda purpose: purpose.name)
def test_keyed_words_pass(purpose: Purpose) -> None:
    results = battery(keyed(purpose))
    suspicious = {name: p for name, p in results.items() if p < SUSPECT}
    assert not suspicious
    # Their probabilities are uniform in turn: a battery whose tests always say 1 would pass anything.
    assert stats.kstest([p for name, p in results.items() if name != "collisions"], "uniform").pvalue > SUSPECT


def test_purposes_have_nothing_to_do_with_each_other() -> None:
    words = [keyed_bits(1, purpose, (0, 0, 0), 2**14) for purpose in Purpose]
    for first, second in combinations(range(len(words)), 2):
        interleaved = np.stack([words[first], words[second]], 1).ravel()
        assert all(test(interleaved) > SUSPECT for test in STREAM_TESTS)
    assert len(np.unique(np.concatenate(words))) == len(Purpose) * 2**14


def lcg_low_bits(key: Key, count: int) -> Words:
    """The low 16 bits of a linear congruential generator, four at a time; their lowest bit just alternates."""
    state = int(keyed(Purpose.VIEW)(key, 1)[0]) % 2**32
    found = []
    for _ in range(4 * count):
        state = (1664525 * state + 1013904223) % 2**32
        found.append(state & 0xFFFF)
    return np.array(found, np.uint16).view("<u8")


def randu(key: Key, count: int) -> Words:
    """IBM's RANDU; all triples lie on fifteen planes."""
    state = int(keyed(Purpose.VIEW)(key, 1)[0]) % 2**31 | 1
    found = []
    for _ in range(count):
        state = 65539 * state % 2**31
        found.append(state << 33 | int(state * 2654435761 % 2**33))
    return np.array(found, np.uint64)


def weyl(key: Key, count: int) -> Words:
    """The key times odd constants: equidistributed, not random."""
    odd = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93, 0xA24BAED4963EE407)
    start = sum(part * constant for part, constant in zip(key, odd, strict=True))
    return np.array([(start + i * 0x9FB21C651E98DF25) % 2**64 for i in range(1, count + 1)], np.uint64)


def with_key(change: Callable[[Key], Key]) -> Callable[[Key, int], Words]:
    return lambda key, count: keyed(Purpose.VIEW)(change(key), count)


def stuck_bit(key: Key, count: int) -> Words:
    """One bit of 64 is 1 in 17 of 32 words."""
    words = keyed(Purpose.VIEW)(key, 2 * count)
    rare = (words[count:] & np.uint64(15)) == 0
    return words[:count] | (rare.astype(np.uint64) << np.uint64(20))


FAULTY: dict[str, tuple[Callable[[Key, int], Words], tuple[str, ...]]] = {
    "low bits of a congruential generator": (lcg_low_bits, ("runs along one draw", "birthday_spacings along one draw")),
    "RANDU": (randu, ("triples along one draw",)),
    "multiples of the key": (weyl, ("avalanche of image", "serial_correlation along images", "gaps along images")),
    "views share a key": (
        with_key(lambda k: (k[0], k[1], k[2], 0)),
        ("distance to the next view", "avalanche of view", "collisions", "pairs along views"),
    ),
    "epochs share a key": (with_key(lambda k: (k[0], 0, k[2], k[3])), ("distance to the next epoch", "collisions")),
    "seeds share a key": (with_key(lambda k: (0, *k[1:])), ("distance to the next seed", "uniformity along seeds")),
    "the seed is added to the image": (
        with_key(lambda k: (0, k[1], k[2] + k[0], k[3])),
        ("distance from image to seed", "collisions"),
    ),
    "the view is added to the image": (
        with_key(lambda k: (k[0], k[1], 2 * k[2] + k[3], 0)),
        ("collisions",),
    ),
    "image numbers wrap at 16 bits": (with_key(lambda k: (k[0], k[1], k[2] % 2**16, k[3])), ("avalanche of image",)),
    "one bit is biased": (stuck_bit, ("balance along one draw", "balance along images")),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_generator_with_a_fault_fails(name: str) -> None:
    source, tests = FAULTY[name]
    results = battery(source, only=tests)
    assert {test: p for test, p in results.items() if p > HOPELESS} == {}


def normal_faults(values: np.ndarray) -> dict[str, float]:
    """Probabilities of the shape, the first four moments and the tails of standard normal numbers."""
    count = len(values)
    moments = {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}  # of the normal distribution: mean and variance of x ** k
    results = {
        f"moment {k}": float(2 * stats.norm.sf(abs((values**k).mean() - mean) / (variance / count) ** 0.5))
        for k, (mean, variance) in moments.items()
    }
    for limit in (2.0, 3.0, 4.0):
        chance = 2 * stats.norm.sf(limit)
        results[f"beyond {limit:g}"] = stats.binomtest(int((np.abs(values) > limit).sum()), count, chance).pvalue
    results["shape"] = stats.kstest(values, "norm").pvalue
    halves = values[: count // 2 * 2].reshape(-1, 2).T
    results["pairs"] = stats.pearsonr(*halves).pvalue
    results["squares of pairs"] = stats.pearsonr(*halves**2).pvalue
    return results


def test_keyed_normals_are_normal() -> None:
    one_draw = keyed_normals(5, Purpose.PIXEL_NOISE, (1, 2, 3), 500_000)
    first_of_each = np.concatenate([keyed_normals(5, Purpose.PIXEL_NOISE, (0, i, 0), 2) for i in range(20_000)])
    for values in (one_draw, first_of_each):
        assert not {name: p for name, p in normal_faults(values).items() if p < SUSPECT}


@pytest.mark.parametrize(
    ("fault", "tests"),
    [
        (lambda u: 2**0.5 * (u.reshape(6, -1).sum(0) - 3), ("moment 4", "beyond 4")),  # nearly normal, without tails
        (lambda u: 1.01 * stats.norm.ppf(u[:100_000] + 2.0**-54), ("moment 2",)),
        (lambda u: np.repeat(stats.norm.ppf(u[:50_000] + 2.0**-54), 2), ("pairs",)),
    ],
)
def test_numbers_that_are_not_quite_normal_are_noticed(
    fault: Callable[[np.ndarray], np.ndarray], tests: tuple[str, ...]
) -> None:
    uniforms = unit(keyed_bits(5, Purpose.PIXEL_NOISE, (1, 2, 3), 1_200_000))
    results = normal_faults(fault(uniforms))
    assert all(results[test] < SUSPECT for test in tests), results


IMAGES, EPOCHS = 5, 24_000


def orders() -> np.ndarray:
    """The order of every epoch, `[EPOCHS, IMAGES]`."""
    plan = StepPlan(IMAGES, IMAGES, EPOCHS, drop_last=True, seed=11)
    return np.stack([plan.batch(epoch)[1] for epoch in range(EPOCHS)])


def test_every_order_of_an_epoch_is_as_likely_as_any_other() -> None:
    number = {order: i for i, order in enumerate(permutations(range(IMAGES)))}
    which = [number[tuple(order)] for order in orders().tolist()]
    assert stats.chisquare(np.bincount(which, minlength=len(number))).pvalue > SUSPECT
    for lag in (1, 2):  # one epoch says nothing about another
        table = np.zeros((len(number), len(number)))
        np.add.at(table, (which[:-lag], which[lag:]), 1)
        assert stats.chisquare(table.ravel()).pvalue > SUSPECT


def test_an_image_is_anywhere_in_an_epoch_of_many() -> None:
    images, epochs = 50, 4000
    plan = StepPlan(images, images, epochs, drop_last=True, seed=11)
    places = np.stack([np.argsort(plan.batch(epoch)[1]) for epoch in range(epochs)])
    counts = np.stack([np.bincount(column, minlength=images) for column in places.T])
    statistic = ((counts - epochs / images) ** 2 / (epochs / images)).sum()
    assert stats.chi2.sf(statistic, (images - 1) ** 2) > SUSPECT
    assert stats.chi2.cdf(statistic, (images - 1) ** 2) > SUSPECT
    # Neighbours in the data set are no neighbours in an epoch, and an epoch does not repeat the one before.
    for first, second in ((places[:, :-1], places[:, 1:]), (places[:-1], places[1:])):
        together = (np.abs(first - second) == 1).sum() if first.shape[1] < images else (first == second).sum()
        chance = 2 / images if first.shape[1] < images else 1 / images
        assert abs(together - first.size * chance) < 5 * (first.size * chance) ** 0.5


def test_runs_of_other_seeds_have_other_orders() -> None:
    plans = [StepPlan(1000, 1000, 1, drop_last=True, seed=seed) for seed in range(200)]
    places = np.stack([plan.batch(0)[1] for plan in plans])
    correlation = np.corrcoef(places) - np.eye(len(plans))
    assert np.abs(correlation).max() < 5.5 / 1000**0.5
