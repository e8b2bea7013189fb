"""A statistical battery for keyed random words: how likely what was found would be if the words were random.

The classical tests (Knuth, The Art of Computer Programming 2, section 3.3.2; Marsaglia and Tsang, "Some
difficult-to-pass tests of randomness", 2002) on the words of one key and on those of keys that follow one another, and
tests of what keys have to do with each other, which no test of a stream sees. All keys are fixed: a generator passes
always or never.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Words = NDArray[np.uint64]
Source = Callable[[tuple[int, int, int, int], int], Words]
"""So many words of the key (seed, epoch, image, view)."""
Results = dict[str, float]
"""The name of a test, and the probability of a result as far from what is expected, or farther."""

SUSPECT = 1e-5
"""A good generator is above this in all of about a hundred results."""
LENGTH = 2**15
BIRTHDAYS, YEAR_BITS = 2**12, 32
FIELD_BITS = {"seed": 31, "epoch": 20, "image": 40, "view": 3}
"""Bits of each part of a key that may differ between two runs, epochs, images or views."""


def battery(source: Source, only: Collection[str] | None = None) -> Results:
    """All tests of `source`, or those that are named in `only`."""
    streams = {name: cache(make) for name, make in _streams(source).items()}
    tests: dict[str, Callable[[], float]] = {
        f"{test.__name__} along {name}": lambda test=test, words=words: test(words())
        for name, words in streams.items()
        for test in STREAM_TESTS
    }
    for part, name in enumerate(FIELD_BITS):
        tests[f"avalanche of {name}"] = lambda part=part: avalanche(source, part)
    for name, step in NEIGHBOURS.items():
        tests[f"distance {name}"] = lambda step=step: distance(source, step)
    tests["collisions"] = lambda: collisions(source)
    return {name: tests[name]() for name in (tests if only is None else only)}


def _streams(source: Source) -> dict[str, Callable[[], Words]]:
    """Words of one key, and the first words of keys that differ in one part."""

    def along(part: int) -> Words:
        keys = np.tile([3, 5, 7, 0], (LENGTH, 1))
        keys[:, part] = np.arange(LENGTH)
        if part == 3:  # there are few views, so of one image after the other
            keys[:, 2], keys[:, 3] = np.divmod(np.arange(LENGTH), 4)
        return _first_words(source, keys)

    return {"one draw": lambda: source((1, 0, 0, 0), LENGTH)} | {
        f"{name}s": partial(along, part) for part, name in enumerate(FIELD_BITS)
    }


def _first_words(source: Source, keys: NDArray[np.int64]) -> Words:
    return np.concatenate([source((a, b, c, d), 1) for a, b, c, d in keys.tolist()])


def unit(words: Words) -> NDArray[np.float64]:
    """Uniform on [0, 1)."""
    return np.asarray((words >> np.uint64(11)) * 2.0**-53)


def bits(words: Words) -> NDArray[np.int64]:
    """`[n, 64]`, the lowest bit first."""
    unpacked = np.unpackbits(words.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    return unpacked.astype(np.int64)


def balance(words: Words) -> float:
    """Each of the 64 bits is as often 1 as 0."""
    ones = bits(words).sum(0)
    return _chi_square((ones - len(words) / 2) ** 2 / (len(words) / 4))


def byte_frequencies(words: Words) -> float:
    """All values of every byte are equally frequent."""
    counts = [np.bincount(column, minlength=256) for column in words.astype("<u8").view(np.uint8).reshape(-1, 8).T]
    return float(stats.chi2.sf(sum(stats.chisquare(c).statistic for c in counts), 8 * 255))


def uniformity(words: Words) -> float:
    """The words, as numbers in [0, 1), are uniform (Kolmogorov and Smirnov)."""
    return float(stats.kstest(unit(words), "uniform").pvalue)


def uniformity_of_low_halves(words: Words) -> float:
    """And so are their lower 32 bits."""
    return float(stats.kstest((words & np.uint64(2**32 - 1)) * 2.0**-32, "uniform").pvalue)


def serial_correlation(words: Words) -> float:
    """None at any distance up to 16."""
    centred = unit(words) - 0.5
    products = [np.sum(centred[lag:] * centred[:-lag]) ** 2 / len(centred[lag:]) for lag in range(1, 17)]
    return _chi_square(np.array(products) * 144)  # the variance of a uniform number is 1 / 12


def pairs(words: Words) -> float:
    """Two words in a row fill a square evenly."""
    return _evenly_filled(words, 2, 16)


def triples(words: Words) -> float:
    """Three words in a row fill a cube evenly."""
    return _evenly_filled(words, 3, 16)


def runs(words: Words) -> float:
    """Each of the 64 bits changes from word to word as often as not (Wald and Wolfowitz)."""
    every = bits(words)
    changes = (every[1:] != every[:-1]).sum(0)
    expected, variance = (len(words) - 1) / 2, (len(words) - 1) / 4
    return _chi_square((changes - expected) ** 2 / variance)


def gaps(words: Words) -> float:
    """How many words lie between two that are in the lowest quarter: geometrically distributed."""
    lengths = np.minimum(np.diff(np.flatnonzero(unit(words) < 0.25)) - 1, 20)
    chances = [0.25 * 0.75**length for length in range(20)] + [0.75**20]
    return float(stats.chisquare(np.bincount(lengths, minlength=21), len(lengths) * np.array(chances)).pvalue)


def birthday_spacings(words: Words) -> float:
    """Distances between birthdays in a year of 2 ** 32 days that occur twice: a Poisson number."""
    halves = np.concatenate([words & np.uint64(2**YEAR_BITS - 1), words >> np.uint64(64 - YEAR_BITS)])
    years = np.sort(halves.reshape(-1, BIRTHDAYS).astype(np.int64), axis=1)
    spacings = np.sort(np.diff(years, axis=1), axis=1)
    twice = int((np.diff(spacings, axis=1) == 0).sum())
    return _two_sided(stats.poisson(len(years) * BIRTHDAYS**3 / (4 * 2**YEAR_BITS)), twice)


STREAM_TESTS = (
    balance, byte_frequencies, uniformity, uniformity_of_low_halves, serial_correlation, pairs, triples, runs, gaps,
    birthday_spacings,
)  # fmt: skip
NEIGHBOURS = {
    "to the next seed": (1, 0, 0, 0),
    "to the next epoch": (0, 1, 0, 0),
    "to the next image": (0, 0, 1, 0),
    "to the next view": (0, 0, 0, 1),
    "from image to seed": (1, 0, -1, 0),
    "from image to epoch": (0, 1, -1, 0),
    "from image to view": (0, 0, -1, 1),
    "from epoch to seed": (1, -1, 0, 0),
    "from view to epoch": (0, 1, 0, -1),
}


def avalanche(source: Source, part: int) -> float:
    """If one bit of one part of the key changes, each bit of the word changes half of the time."""
    width, trials = list(FIELD_BITS.values())[part], 64
    random = np.random.default_rng(part)
    keys = np.stack([random.integers(0, 2**size, trials) for size in FIELD_BITS.values()], 1)
    before = bits(_first_words(source, keys))
    statistic = []
    for bit in range(width):
        flipped = keys.copy()
        flipped[:, part] ^= 1 << bit
        changes = (bits(_first_words(source, flipped)) != before).sum(0)
        statistic.append((changes - trials / 2) ** 2 / (trials / 4))
    return _chi_square(np.concatenate(statistic), binomial_trials=trials)


def distance(source: Source, step: tuple[int, int, int, int]) -> float:
    """The words of two keys that lie near each other differ in as many bits as any two."""
    keys = np.stack([np.arange(4096) + offset for offset in (1, 1, 1, 1)], 1)
    keys[:, 3] = 1 + keys[:, 3] % 3
    keys[:, 1] = 1 + keys[:, 1] % 300
    differ = (bits(_first_words(source, keys)) != bits(_first_words(source, keys + np.array(step)))).sum(1)
    low, high = 24, 40
    chances = stats.binom(64, 0.5).pmf(np.arange(65))
    expected = np.array([chances[: low + 1].sum(), *chances[low + 1 : high], chances[high:].sum()])
    counts = np.bincount(np.clip(differ, low, high) - low, minlength=high - low + 1)
    return float(stats.chisquare(counts, len(keys) * expected).pvalue)


def collisions(source: Source) -> float:
    """No word comes twice; among so many, two would be alike with the probability that is given for that."""
    grid = [(s, e, i, v) for s in range(8) for e in range(8) for i in range(64) for v in range(4)]
    words = np.concatenate([source(key, 2) for key in grid])
    return 1.0 if len(np.unique(words)) == len(words) else len(words) ** 2 / 2**65


def _evenly_filled(words: Words, axes: int, cells: int) -> float:
    cell = (unit(words) * cells).astype(np.int64)
    cell = cell[: len(cell) // axes * axes].reshape(-1, axes)
    index = (cell * cells ** np.arange(axes)).sum(1)
    return float(stats.chisquare(np.bincount(index, minlength=cells**axes)).pvalue)


def _chi_square(squares: NDArray[np.float64], binomial_trials: int | None = None) -> float:
    """Of the sum of squared standard normals; both tails, for too even is not random either.

    Many squares of binomial numbers of few trials: their variance is 2 - 2 / trials, and their sum is nearly normal.
    """
    if binomial_trials is not None:
        deviation = (squares.sum() - squares.size) / np.sqrt(squares.size * (2 - 2 / binomial_trials))
        return float(2 * stats.norm.sf(abs(deviation)))
    return float(2 * min(stats.chi2.sf(squares.sum(), squares.size), stats.chi2.cdf(squares.sum(), squares.size)))


def _two_sided(distribution: stats.rv_frozen, value: int) -> float:
    return float(min(1.0, 2 * min(distribution.cdf(value), distribution.sf(value - 1))))
