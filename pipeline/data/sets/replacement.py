"""Which image stands in for one that cannot be decoded (`data.on_error: skip`).

A pure function, so that every worker, after any restart, takes the same one: the batch stays what it was.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.data.augment.keyed_draws import Purpose, keyed_bits

TRIES = 16
"""Drawn one after the other until one can be decoded. If a tenth of a data set is broken, all fail once in 10^16."""


def replacements(seed: int, epoch: int, index: int, length: int) -> Iterator[int]:
    """The images to try in place of image `index`, in order: up to 16 different ones, none of them `index`.

    They are drawn uniformly for (seed, epoch, index), so that another image stands in in every epoch, and what
    is broken shifts no weight to its neighbours in the folder.

    Args:
        seed: of the run.
        epoch: counted from 0.
        index: of the broken image.
        length: images in the data set; nothing can stand in for the only one.
    """
    tried = {index}
    for bits in keyed_bits(seed, Purpose.REPLACEMENT, (0, index, epoch), TRIES).tolist():
        other = bits % length  # 2^64 is so far above any length that no number is favoured
        if other not in tried:
            tried.add(other)
            yield other
