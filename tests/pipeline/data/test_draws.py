"""Keyed random bits: numpy's Philox stream, whatever was drawn before and in whichever thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline.data.draws import Purpose, keyed_bits, keyed_uniforms


def fresh(seed: int, purpose: Purpose, where: tuple[int, int, int], count: int) -> np.ndarray:
    return np.random.Philox(key=[seed, purpose], counter=[0, *where]).random_raw(count)


def test_bits_are_those_of_a_fresh_generator_and_depend_on_no_earlier_draw() -> None:
    for count in (1, 5, 7, 4, 33):
        for where in ((0, 0, 0), (1, 2, 3), (2**63, 5, 2**40)):
            bits = keyed_bits(9, Purpose.VIEW, where, count)
            np.testing.assert_array_equal(bits, fresh(9, Purpose.VIEW, where, count))


def test_known_values() -> None:
    """Runs are repeatable across machines and versions only as long as these never change."""
    assert keyed_bits(0, Purpose.ORDER, (0, 0, 0), 2).tolist() == [15003734204198539638, 13859618513508960101]
    assert keyed_bits(1, Purpose.VIEW, (1, 2, 3), 2).tolist() == [12961907748859493591, 4221888895069295380]


def test_uniforms_are_those_of_numpys_generator() -> None:
    generator = np.random.Generator(np.random.Philox(key=[3, Purpose.VIEW], counter=[0, 1, 2, 3]))
    assert keyed_uniforms(3, Purpose.VIEW, (1, 2, 3), 50) == generator.random(50).tolist()


def test_threads_do_not_disturb_each_other() -> None:
    def draw(i: int) -> bool:
        where = (i % 2, i, i // 3)
        return bool((keyed_bits(i, Purpose.VIEW, where, 9) == fresh(i, Purpose.VIEW, where, 9)).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(draw, range(400)))
