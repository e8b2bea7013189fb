"""Which image stands in for a broken one: always the same, another in every epoch, and none more often than others."""

from __future__ import annotations

import numpy as np

from pipeline.data.sets.replacement import TRIES, replacements


def test_a_pure_function_of_seed_epoch_and_image() -> None:
    chosen = {key: list(replacements(*key, 1000)) for key in [(0, 0, 5), (1, 0, 5), (0, 1, 5), (0, 0, 6)]}
    assert chosen == {key: list(replacements(*key, 1000)) for key in reversed(chosen)}
    assert len({tuple(found) for found in chosen.values()}) == 4


def test_others_are_tried_and_never_one_twice() -> None:
    for length in (2, 3, 10, 10**6):
        for index in range(min(length, 20)):
            found = list(replacements(3, 2, index, length))
            assert index not in found
            assert all(0 <= other < length for other in found)
            assert len(set(found)) == len(found)
            assert 1 <= len(found) <= min(length - 1, TRIES)
    assert list(replacements(0, 0, 0, 1)) == []


def test_no_image_is_favoured() -> None:
    first = [next(iter(replacements(0, epoch, 7, 10))) for epoch in range(4000)]
    counts = np.bincount(first, minlength=10)
    assert counts[7] == 0
    expected = 4000 / 9
    assert ((np.delete(counts, 7) - expected) ** 2 / expected).sum() < 26.1  # chi-square, 8 degrees, p = 0.001
